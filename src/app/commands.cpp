#include "src/app/commands.hpp"

namespace rankwise::app {

const std::vector<Command>& all_commands() {
    static const std::vector<Command> commands{
        {.name = "train",
         .summary = "runs the stages of a recipe, or goes on where it stopped",
         .positional = "RECIPE",
         .text = "Options of the recipe may be given as --section.key value; they go over the "
                 "file. The same command "
                 "again goes on from the newest checkpoint, on any number of ranks. USR1 or TERM "
                 "saves and ends with "
                 "code 3.",
         .examples = {"mpirun -n 2 rankwise train configs/countdown.ini",
                      "rankwise train configs/tiny.ini --run.directory /tmp/try --run.seed 2"},
         .takes_settings = true,
         .on_ranks = run_train},
        {.name = "report",
         .summary = "writes a run's report.html anew: curves, evaluations, answers",
         .positional = "RUN",
         .text = "Works on a finished run and on one that still goes on. The page needs no network "
                 "to be viewed.",
         .examples = {"rankwise report runs/countdown"},
         .alone = run_report},
        {.name = "compare",
         .summary = "finds the first step, phase and tensor in which two runs differ",
         .positional = "RUN_A RUN_B",
         .text = "Compares the logical options, every line of the metrics (not times and speeds), "
                 "then the rollouts and checkpoints that both runs have. Ends with 0 if all is "
                 "equal to the bit, with 5 if not.",
         .examples = {"rankwise compare runs/one_rank runs/eight_ranks"},
         .alone = run_compare},
        {.name = "inspect",
         .summary = "says what a run, checkpoint, step of rollouts or model holds",
         .positional = "PATH",
         .options = {{"tensors", "", "lists every tensor with its shape"},
                     {"options", "", "prints the options saved in a checkpoint"},
                     {"verify", "", "reads a checkpoint whole and checks every checksum"}},
         .examples = {"rankwise inspect runs/countdown",
                      "rankwise inspect runs/countdown/checkpoints/step_00000120 --verify",
                      "rankwise inspect models/qwen --tensors"},
         .alone = run_inspect},
        {.name = "view",
         .summary = "makes a file with a checkpoint's whole tensors, for h5py and h5dump",
         .positional = "CHECKPOINT_OR_RUN",
         .text = "The file holds no data: its datasets point into the checkpoint's shards. A run "
                 "directory stands for its newest checkpoint.",
         .options = {{"model", "NAME", "which model of the run; default policy"},
                     {"output", "FILE", "default: model.h5 in the checkpoint"}},
         .examples = {"rankwise view runs/countdown",
                      "python3 -c 'import h5py; print(list(h5py.File(\"model.h5\")))'"},
         .alone = run_view},
        {.name = "grade",
         .summary = "judges answers in a file of JSON lines with rewards by name",
         .positional = "[FILE]",
         .text = "Each line is a problem with its \"completion\"; for each a line with the scores "
                 "is written. FILE - is standard input.",
         .options = {{"rewards", "NAMES",
                      "rewards with commas between them, like countdown,format"},
                     {"weights", "NUMBERS", "their weights; default 1 each"},
                     {"tokenizer", "PATH", "tokenizer.json, for rewards that count tokens"},
                     {"output", "FILE", "default: standard output"},
                     {"list", "", "lists the rewards there are, with their parameters"}},
         .examples = {"rankwise grade answers.jsonl --rewards countdown,format --weights 1,0.2",
                      "rankwise grade - --rewards 'soft_overlong(max_length=256 cache=96)'"},
         .alone = run_grade},
        {.name = "options",
         .summary = "lists the options of recipes, by section",
         .positional = "[SECTION_OR_KIND]",
         .text = "Each option is logical (changes what is computed), physical (must not change a "
                 "bit; the layout matrix varies it) or operational (says why it can do neither).",
         .options = {{"physical", "",
                      "only the physical ones, a line each for programs: section, kind, name, "
                      "default, matrix values, with tabs between them"}},
         .examples = {"rankwise options run", "rankwise options --physical"},
         .alone = run_options},
        {.name = "version",
         .summary = "says what this program was built from and with",
         .alone = run_version},
    };
    return commands;
}

}  // namespace rankwise::app
