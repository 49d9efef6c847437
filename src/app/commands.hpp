// The commands of the program, one function each. A new one is one file and one row in
// commands.cpp.
#pragma once

#include <vector>

#include "src/app/command.hpp"

namespace rankwise::app {

/// In the order of --help.
[[nodiscard]] const std::vector<Command>& all_commands();

// Each returns the exit code; errors are thrown.
int run_bench(const Arguments& arguments, Session& session);
int run_compare(const Arguments& arguments);
int run_eval(const Arguments& arguments, Session& session);
int run_export(const Arguments& arguments);
int run_generate(const Arguments& arguments, Session& session);
int run_grade(const Arguments& arguments);
int run_inspect(const Arguments& arguments);
int run_options(const Arguments& arguments);
int run_train(const Arguments& arguments, Session& session);
int run_plan(const Arguments& arguments);
int run_report(const Arguments& arguments);
int run_score(const Arguments& arguments, Session& session);
int run_version(const Arguments& arguments);
int run_view(const Arguments& arguments);
int run_reshard(const Arguments& arguments);

}  // namespace rankwise::app
