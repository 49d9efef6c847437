#include "src/app/commands.hpp"

namespace rankwise::app {
namespace {

constexpr const char* kHowToCompute =
    "an option of [device] or [generation]: how it is computed, never what (rankwise options)";

}  // namespace

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
        {.name = "plan",
         .summary = "says how much memory each stage of a recipe will need on a rank, and what it "
                    "sends",
         .positional = "RECIPE",
         .text =
             "Every stage is built and gone through on a device that computes nothing and counts "
             "what is allocated and sent, with answers as long as they may become. A run prints "
             "the "
             "largest of these figures at its start, does not begin where there is less memory "
             "([run] memory_check), and writes what was measured beside what was planned to "
             "memory.jsonl.",
         .options = {{"ranks", "N", "ranks to plan for; none is started; default 1"},
                     {"memory-gb", "G",
                      "memory of a rank: lists every layout of these ranks with what it takes and "
                      "sends, and proposes the one that fits and splits least"}},
         .examples = {"rankwise plan configs/countdown.ini --ranks 2",
                      "rankwise plan configs/countdown.ini --ranks 16 --memory-gb 80",
                      "rankwise plan configs/countdown.ini --update.recompute fit "
                      "--memory-gb 0.3"},
         .takes_settings = true,
         .alone = run_plan},
        {.name = "eval",
         .summary = "measures a model on a recipe's held-out problems",
         .positional = "RECIPE|RUN",
         .text =
             "Prints pass@1, pass@k and cons@k (the majority of k answers is right) with what "
             "else an evaluate stage measures, then the same as one line of JSON. For the same "
             "weights the numbers and digests are those of the stage in training, on any number "
             "of ranks. Nothing in a run is changed.\n\n"
             "A run stands for its recipe and its newest checkpoint; a recipe for the run that "
             "it makes, or for [model.policy] folder. A model is a Hugging Face folder, a "
             "checkpoint or a run.",
         .options = {{"model", "MODEL", "the model to measure; default: see above"},
                     {"stage", "NAME",
                      "the stage of the recipe that says how to measure; default: the last of kind "
                      "evaluate, else the last"},
                     {"samples", "K", "answers to each problem; default: the stage's"},
                     {"problems", "N", "held-out problems; 0: all; default: the stage's"},
                     {"output", "FILE", "the line of JSON goes there too"}},
         .examples = {"rankwise eval runs/countdown",
                      "mpirun -n 2 rankwise eval configs/countdown.ini --model models/mine",
                      "rankwise eval runs/r1 --model runs/r1/checkpoints/step_00000120"},
         .takes_settings = true,
         .on_ranks = run_eval,
         .reports_stalls = true},
        {.name = "export",
         .summary = "writes a model as a Hugging Face folder",
         .positional = "MODEL FOLDER",
         .text = "MODEL is a checkpoint, a run (its newest checkpoint) or a model folder, whose "
                 "type or sharding may so be changed. FOLDER, which must not be there yet or be "
                 "empty, gets config.json, safetensors and the tokenizer's files, and appears when "
                 "it is whole. With float32 the weights are the checkpoint's to the bit; bfloat16 "
                 "rounds them to nearest. There is no import: wherever a model is asked for, a "
                 "folder can be given.",
         .options = {{"dtype", "TYPE", "float32 (default) or bfloat16"},
                     {"max-shard-gb", "GB",
                      "a file grows no larger than this, in 10^9 bytes, unless one tensor is; "
                      "default 5"}},
         .examples =
             {"rankwise export runs/countdown models/mine",
              "rankwise export runs/r1/checkpoints/step_00000120 models/r1 --dtype bfloat16"},
         .alone = run_export},
        {.name = "generate",
         .summary = "answers prompts with a model, as text that flows or as JSON lines",
         .positional = "MODEL",
         .text =
             "MODEL is a Hugging Face folder, a checkpoint, or a run, which stands for its newest "
             "checkpoint. Prompts are given as they are: there are no chat templates yet, so the "
             "model goes on from the text.\n"
             "One prompt a line, or a JSON object a line with \"prompt\" (text) or "
             "\"prompt_tokens\" (ids); its other fields are passed on. \"prompt_id\" (or \"id\") "
             "and "
             "\"step\" name the random streams of its answers, as in a run's rollouts; without "
             "them "
             "it is the row's number and 0. The same model, prompt, names, seed and sampling give "
             "the same tokens and log-probabilities on any number of ranks.\n"
             "A terminal without --prompt and --file is a dialogue of single lines. Under mpirun "
             "prompts are dealt over the ranks, and answers are written when a round is done.",
         .options = {{"prompt", "TEXT", "one prompt"},
                     {"file", "PATH", "prompts; - or nothing: standard input"},
                     {"format", "NAME",
                      "of the prompts: text or json; default: json if the file is *.jsonl or "
                      "*.json"},
                     {"samples", "K", "answers to each prompt; default 1"},
                     {"max-tokens", "N", "most tokens of an answer; default 256"},
                     {"temperature", "T", "0: the most likely token; default 1"},
                     {"top-k", "K", "draw among this many most likely tokens; default 0: all"},
                     {"top-p", "P",
                      "draw among the most likely tokens with this total probability; default 1"},
                     {"min-p", "P",
                      "drop tokens less likely than this share of the most likely; default 0"},
                     {"stop", "TEXTS",
                      "texts that end an answer and belong to it, with commas between them"},
                     {"seed", "N", "default 1"},
                     {"json", "", "writes JSON lines: completion, finish_reason, tokens, logprobs"},
                     {"tokenizer", "PATH",
                      "folder or tokenizer.json to take instead of the "
                      "model's"},
                     {"output", "FILE", "default: standard output"}},
         .examples = {"rankwise generate models/qwen --prompt 'Once upon a time' --top-p 0.9",
                      "rankwise generate runs/countdown --prompt '3,5,7->22' --device.threads 2",
                      "mpirun -n 2 rankwise generate models/qwen --file problems.jsonl \\\n"
                      "      --samples 8 --json --output answers.jsonl"},
         .takes_settings = true,
         .settings = kHowToCompute,
         .on_ranks = run_generate,
         .reports_stalls = true},
        {.name = "score",
         .summary = "gives each token of texts its log-probability and entropy under a model",
         .positional = "MODEL",
         .text =
             "MODEL as of rankwise generate. Each row is a JSON object: \"prompt\" or "
             "\"prompt_tokens\", and \"completion\" or \"tokens\", of which every token is scored; "
             "or "
             "\"text\" by itself, of which the first token is the prompt. A completion is turned "
             "into "
             "tokens by itself, as in training. Each row is written with its fields and "
             "\"tokens\", \"logprobs\", \"entropies\" (in nats) and their sum "
             "\"logprob\", in the order of the input. They are the bits that generation and "
             "training compute, on any number of ranks.",
         .options = {{"file", "PATH", "rows; - or nothing: standard input"},
                     {"temperature", "T",
                      "of the distribution: logits are divided by it; 0 counts as 1; default 1"},
                     {"tokenizer", "PATH",
                      "folder or tokenizer.json to take instead of the "
                      "model's"},
                     {"output", "FILE", "default: standard output"}},
         .examples = {"rankwise score models/qwen --file answers.jsonl --output scores.jsonl",
                      "rankwise generate runs/a --prompt Hi --json | rankwise score runs/b"},
         .takes_settings = true,
         .settings = kHowToCompute,
         .on_ranks = run_score,
         .reports_stalls = true},
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
        {.name = "reshard",
         .summary = "writes a checkpoint anew, as another layout would have written it",
         .positional = "CHECKPOINT_OR_RUN FOLDER",
         .text = "FOLDER/step_N is the same checkpoint, to the byte as ranks of this layout would "
                 "have saved it, with a shard for each of them. A run loads any layout by itself, "
                 "but then every rank opens, and checks, every file that has a part of what it "
                 "needs; of its own layout that is one file or few. FOLDER may be the checkpoints "
                 "folder of a new run, which then goes on from it. Axes have the names of "
                 "[parallel]; degrees that the models cannot have are refused with those that they "
                 "can. Memory does not depend on the model's size.",
         .options = {{"ranks", "N", "ranks to write for; default 1"},
                     {"data", "N", "data ranks among them; default 0: all that are left"},
                     {"pipeline", "N", "pipeline ranks among them; default 1"},
                     {"schedule", "NAME",
                      "of the pipeline: with interleaved a rank has two stretches of layers; "
                      "default 1f1b"},
                     {"tensor", "N", "tensor ranks among them; default 1"},
                     {"expert", "N", "ranks that share out routed experts; default 1"},
                     {"zero", "N", "0, 1 or 3, which save the same files; default 1"}},
         .examples =
             {"rankwise reshard runs/a runs/b/checkpoints --ranks 8 --tensor 2 --pipeline 2",
              "rankwise reshard runs/a/checkpoints/step_00000120 whole"},
         .alone = run_reshard},
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
        {.name = "bench",
         .summary = "measures the machine's limits, and how near to them everything is",
         .text =
             "The limits are measured on the spot: multiply-adds on registers alone for each "
             "instruction set, memory that is only read in the fastest of several patterns, and "
             "the link between ranks. Then each operation and each phase of training: the work, "
             "the median time with half the distance of its quartiles, and the share of the "
             "limit, which is measured again beside every round. Models have random weights. "
             "All rows take some minutes and 8 GB; with --only few seconds.\n"
             "A row is chosen by its name, or by the beginning of names up to a slash. Under "
             "mpirun phases are shared out over the ranks, and operations are done by all ranks "
             "at once.",
         .options = {{"only", "NAMES", "rows to measure, with commas between them"},
                     {"list", "", "lists the rows there are, and measures nothing"},
                     {"threads", "N", "compute threads a rank; default 1"},
                     {"seconds", "S", "to spend on a row; default 0.5"},
                     {"rounds", "N", "of a row at least; default 3"},
                     {"batches", "LIST",
                      "answers that are decoded at a time, with commas between them; default "
                      "1,8,64,512"},
                     {"prompts", "N", "that eight answers each are generated to; default 8"},
                     {"processor-time", "",
                      "of the one thread that computes, of which other programs cannot take: for "
                      "a machine that is not quiet"},
                     {"no-limits", "", "measures no limits beside the rows: less memory"},
                     {"json", "FILE", "what was measured, with the machine and its load"},
                     {"compare", "FILE",
                      "prints how much faster each row is than in this --json file of the same "
                      "machine"},
                     {"folder", "PATH",
                      "where checkpoint rows write; made, and removed; default "
                      "rankwise_bench_files"}},
         .examples = {"rankwise bench --only limits,matmul --threads 2",
                      "rankwise bench --only decode/llama-3m --json before.json",
                      "rankwise bench --only decode/llama-3m --compare before.json",
                      "mpirun -n 2 rankwise bench --only limits/link,update/llama-30m"},
         .takes_settings = true,
         .settings = "an option of [device], [parallel], [generation] or [update]: how it is "
                     "computed, never what (rankwise options)",
         .on_ranks = run_bench},
        {.name = "version",
         .summary = "says what this program was built from and with",
         .alone = run_version},
    };
    return commands;
}

}  // namespace rankwise::app
