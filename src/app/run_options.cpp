#include "src/app/run_options.hpp"

namespace rankwise::app {

OptionList RunOptions::options() {
    OptionList list;
    list.logical("stages", &stages,
                 "names of the stages to run, in order; each has a [stage.NAME]");
    list.logical("seed", &seed, "seed of every random number of the run").at_least(0);
    list.operational("directory", &directory, "says where files lie, not what is in them",
                     "directory of the run; default runs/ and the name of the recipe");
    list.operational("time_limit_s", &time_limit_s, "a stopped run goes on with the same bits",
                     "seconds after which the run saves and ends with code 3; 0: none")
        .at_least(0);
    list.operational("stop_after_steps", &stop_after_steps,
                     "a stopped run goes on with the same bits",
                     "steps that this start does before it saves and ends with code 3; 0: no limit")
        .at_least(0);
    list.operational("checkpoint_every", &checkpoint_every, "saving changes nothing",
                     "steps between checkpoints; 0: only when the run stops or a stage ends")
        .at_least(0);
    list.operational("checkpoint_in_background", &checkpoint_in_background,
                     "the files are the same",
                     "checkpoints are written while the next step computes; what is not written "
                     "when weights are about to change is copied first");
    list.operational("direct_io", &direct_io, "the files are the same",
                     "checkpoints go past the system's cache where the file system can do that: "
                     "writing takes a tenth of the processor's time");
    list.operational("keep_last", &keep_last, "deletes only what is no longer read",
                     "newest checkpoints to keep")
        .at_least(1);
    list.operational("keep_every", &keep_every, "deletes only what is no longer read",
                     "checkpoints of multiples of this step are kept too; 0: none")
        .at_least(0);
    list.operational("rollouts_every", &rollouts_every, "only says what is written down",
                     "steps between rollout files; 0: none")
        .at_least(0);
    list.operational("sample_every", &sample_every, "only says what is written down",
                     "steps between sample answers that are recorded and shown; 0: none")
        .at_least(0);
    list.operational("trace", &trace, "only says what is written down",
                     "steps, as STAGE:STEP, in which digests of what each layer's operations give "
                     "and of all gradients are written to traces/, for rankwise compare; such a "
                     "step takes longer and more memory");
    list.operational("memory_check", &memory_check, "only says whether the run begins",
                     "when the memory planned is more than is free: refuse or warn")
        .one_of({"refuse", "warn"});
    list.operational("memory_gb", &memory_gb, "only limits what is planned",
                     "10^9 bytes that a rank may take, the program's own included; 0: its share "
                     "of what its node has free")
        .at_least(0);
    list.operational("display", &display, "only says what is printed",
                     "auto: live on a terminal, lines elsewhere")
        .one_of({"auto", "live", "lines", "off"});
    list.operational("log_level", &log_level, "only says what is logged",
                     "least level that is logged")
        .one_of({"debug", "info", "warning", "error"});
    list.operational("watchdog_s", &watchdog_s, "reports, and changes nothing",
                     "seconds without any progress after which ranks report what they wait for")
        .at_least(0.1);
    list.operational("check_collectives", &check_collectives, "compares calls, and moves no data",
                     "before each communication the ranks compare what they are about to do, and "
                     "the one that differs is named: slow, for looking into a hang");
    list.operational("watchdog_end_s", &watchdog_end_s, "ends a run that no longer moves",
                     "seconds after such a report, with still no progress, until a rank that waits "
                     "for no other ends the job with code 6 (four times as many where all wait; "
                     "never where there is one rank); 0: never")
        .at_least(0);
    return list;
}

OptionList ResumeOptions::options() {
    OptionList list;
    list.operational("step", &step, "every checkpoint of a run leads to the same bits",
                     "checkpoint to go on from; -1: the newest whole one")
        .at_least(-1);
    list.operational("accept", &accept, "the change that it lets through is logical itself",
                     "section.key of logical options that may differ from the checkpoint's");
    return list;
}

}  // namespace rankwise::app
