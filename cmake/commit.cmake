# cmake -DROOT=… -DOUT=… -P commit.cmake: writes OUT, a header with the commit of the sources in ROOT as they are now.
# It is written at each build and touched only when that changes: a record of a run must not name the commit of an earlier build.
cmake_minimum_required(VERSION 3.25)
set(commit "")
find_program(GIT_PROGRAM git)
if(GIT_PROGRAM AND EXISTS "${ROOT}/.git")  # a released archive may lie inside somebody else's clone
    execute_process(COMMAND "${GIT_PROGRAM}" describe --always --dirty --tags
        WORKING_DIRECTORY "${ROOT}" OUTPUT_VARIABLE commit
        OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
file(CONFIGURE OUTPUT "${OUT}" CONTENT "#pragma once\n#define RANKWISE_COMMIT \"@commit@\"\n" @ONLY)
