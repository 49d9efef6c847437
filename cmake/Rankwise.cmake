# Shared build rules: warning and floating-point flags, one library a folder, tests.

# Floating-point contraction would let the compiler choose where a product is fused into a sum, and the bits would
# depend on it; every fused multiply-add in this project is written as one. No fast-math for the same reason.
add_library(rankwise_flags INTERFACE)
target_compile_options(rankwise_flags INTERFACE
    -ffp-contract=off -fno-fast-math
    -Wall -Wextra -Wconversion -Wshadow -Werror
    # A designated initialiser that leaves a member to its default is how arguments are passed here.
    -Wno-missing-field-initializers
    # GCC 12 sees overlapping copies in its own std::string when it optimises (its bug 105651).
    $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>)
target_include_directories(rankwise_flags INTERFACE "${CMAKE_SOURCE_DIR}")
if(RANKWISE_SANITIZE)
    target_compile_options(rankwise_flags INTERFACE
        -fsanitize=${RANKWISE_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(rankwise_flags INTERFACE -fsanitize=${RANKWISE_SANITIZE})
endif()

# rankwise_compile_at(LEVEL): optimisation in releases of this folder's targets and of those below it. What no clock sees is compiled
# at -O1 or -O0: at -O3 the compiler takes a third longer.
function(rankwise_compile_at level)
    set_property(DIRECTORY PROPERTY COMPILE_OPTIONS $<$<CONFIG:Release>:${level}>)
endfunction()

# rankwise_library(name SOURCES a.cpp … LIBRARIES PUBLIC|PRIVATE …): the one library of a folder, rankwise_<name>.
# A folder without sources yet is an interface library.
function(rankwise_library name)
    cmake_parse_arguments(ARG "" "" "SOURCES;PUBLIC;PRIVATE" ${ARGN})
    set(target rankwise_${name})
    if(ARG_SOURCES)
        add_library(${target} STATIC ${ARG_SOURCES})
        target_link_libraries(${target} PUBLIC ${ARG_PUBLIC} PRIVATE rankwise_flags ${ARG_PRIVATE})
        target_include_directories(${target} PUBLIC "${CMAKE_SOURCE_DIR}")
    else()
        add_library(${target} INTERFACE)
        target_link_libraries(${target} INTERFACE ${ARG_PUBLIC} ${ARG_PRIVATE})
        target_include_directories(${target} INTERFACE "${CMAKE_SOURCE_DIR}")
    endif()
endfunction()

# rankwise_test(name SOURCES … LIBRARIES … [RANKS n…] [LABELS …] [TIMEOUT s]): one GoogleTest program.
# With RANKS it is run once for each number of ranks under mpirun (its main comes from tests/support/mpi_main.cpp).
function(rankwise_test name)
    cmake_parse_arguments(ARG "" "TIMEOUT" "SOURCES;LIBRARIES;RANKS;LABELS" ${ARGN})
    if(NOT ARG_TIMEOUT)
        set(ARG_TIMEOUT 120)
    endif()
    if(RANKWISE_SANITIZE)
        math(EXPR ARG_TIMEOUT "5 * ${ARG_TIMEOUT}")  # checked memory is that much slower
    endif()
    add_executable(${name} ${ARG_SOURCES})
    target_link_libraries(${name} PRIVATE rankwise_flags rankwise_test_support ${ARG_LIBRARIES})
    if(ARG_RANKS)
        target_sources(${name} PRIVATE "${CMAKE_SOURCE_DIR}/tests/support/mpi_main.cpp")
        target_link_libraries(${name} PRIVATE MPI::MPI_C GTest::gtest)
        foreach(ranks IN LISTS ARG_RANKS)
            add_test(NAME ${name}_${ranks}_ranks COMMAND "${CMAKE_SOURCE_DIR}/tests/support/run_ranks" ${ranks} $<TARGET_FILE:${name}>)
            set_tests_properties(${name}_${ranks}_ranks PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT}
                PROCESSORS 2 SKIP_RETURN_CODE 77)
        endforeach()
    else()
        target_link_libraries(${name} PRIVATE GTest::gtest_main)
        add_test(NAME ${name} COMMAND ${name})
        set_tests_properties(${name} PROPERTIES LABELS "${ARG_LABELS}" TIMEOUT ${ARG_TIMEOUT})
    endif()
endfunction()
