// rankwise export: a model as a Hugging Face folder.
#include <fmt/format.h>

#include <cstdio>

#include "src/app/command_options.hpp"
#include "src/app/commands.hpp"
#include "src/app/display.hpp"
#include "src/model/initialise.hpp"
#include "src/stages/model_source.hpp"

namespace rankwise::app {
namespace {

struct ExportSettings {
    std::string dtype = "float32";
    double max_shard_gb = 5.0;

    [[nodiscard]] OptionList options() {
        OptionList list;
        list.logical("dtype", &dtype, "type of the tensors").one_of({"float32", "bfloat16"});
        list.operational("max-shard-gb", &max_shard_gb, "says how files are cut", "largest file")
            .at_least(1e-6);
        return list;
    }
};

/// A folder that is made whole or not at all.
class NewFolder {
  public:
    NewFolder(io::FileSystem& fs, io::Path path)
        : fs_(fs), path_(std::move(path)), temporary_(path_) {
        temporary_ += ".tmp";
        fs.remove_tree(temporary_);  // of an export that was cut off
        fs.create_directories(temporary_);
    }
    NewFolder(const NewFolder&) = delete;
    NewFolder& operator=(const NewFolder&) = delete;
    ~NewFolder() {
        if (temporary_.empty()) return;
        try {
            fs_.remove_tree(temporary_);
        } catch (const EnvironmentError& error) {  // the first error is on its way already
            fmt::print(stderr, "{}\n", error.what());
        }
    }
    [[nodiscard]] const io::Path& temporary() const { return temporary_; }
    void finish() {
        fs_.sync_directory(temporary_);
        fs_.rename(temporary_, path_);
        temporary_.clear();
        fs_.sync_directory(std::filesystem::absolute(path_).parent_path());
    }

  private:
    io::FileSystem& fs_;
    io::Path path_;
    io::Path temporary_;
};

io::Path without_slash(const std::string& text) {
    const io::Path path(text);
    return path.has_filename() ? path : path.parent_path();
}

}  // namespace

int run_export(const Arguments& arguments) {
    const auto fs = io::posix_file_system();
    const io::Path target = without_slash(arguments.positional.at(1));
    ExportSettings settings;
    std::vector<std::string> problems;
    read_options(arguments, settings.options(), problems);
    if (fs->exists(target) &&
        (!std::filesystem::is_directory(target) || !fs->list(target).empty())) {
        problems.push_back(fmt::format(
            "{}: is there already; give a folder that is not, or remove it", target.string()));
    }
    if (!problems.empty()) throw Problems(std::move(problems));

    const auto source = stages::ModelSource::open(*fs, arguments.positional.at(0));
    for (const std::string& note : source.notes()) fmt::print(stderr, "passed by: {}\n", note);
    const model::ExportOptions options{
        .dtype = settings.dtype == "bfloat16" ? DType::bf16 : DType::f32,
        .max_file_bytes = static_cast<std::int64_t>(settings.max_shard_gb * 1e9)};
    const ParameterTable table = model::decoder_parameters(source.config()).table;
    const std::int64_t bytes = table.elements() * size_of(options.dtype);

    NewFolder folder(*fs, target);
    io::require_space(*fs, folder.temporary(), bytes, "the exported model");
    const model::ReadRows read = [&](ParameterId id, Range rows, std::span<float> values) {
        source.read_rows(table[id], id, rows, values);
    };
    model::export_folder(source.config(), read, *fs, folder.temporary(), options);
    source.finish();
    if (source.tokenizer()) {
        for (const auto& [name, text] : source.tokenizer()->files())
            io::replace_file(*fs, folder.temporary() / name, io::bytes_of(text));
    }
    folder.finish();
    fmt::print("{}: {} parameters of {} as {}\n", target.string(),
               number_text(static_cast<double>(table.elements())), source.title(), settings.dtype);
    return 0;
}

}  // namespace rankwise::app
