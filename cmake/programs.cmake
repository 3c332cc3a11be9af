# Stress programs, benchmarks, examples and tools.
#
# Each C file in stress/, bench/ and examples/ is one program, linked with the
# folder's common.c where there is one; each folder in tools/ is one program.
# A folder with a CMakeLists.txt of its own says for itself what it holds.
# The target of a folder (stress, bench, examples, tools) builds all of it.

function(heist_programs_of folder prefix)
    set(dir "${CMAKE_SOURCE_DIR}/${folder}")
    add_custom_target(${folder})
    if(EXISTS "${dir}/CMakeLists.txt")
        add_subdirectory("${dir}")
        return()
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${dir}/*.c")
    set(common "")
    if("${dir}/common.c" IN_LIST sources)
        set(common "${dir}/common.c")
        list(REMOVE_ITEM sources "${common}")
    endif()
    foreach(source IN LISTS sources)
        get_filename_component(name "${source}" NAME_WE)
        if(NOT name MATCHES "^${prefix}")
            set(name "${prefix}${name}")
        endif()
        heist_program(${name} SOURCES "${source}" ${common})
        if(TARGET ${name}) # else it needs a part that is left out
            target_include_directories(${name} PRIVATE "${dir}")
            add_dependencies(${folder} ${name})
        endif()
    endforeach()
endfunction()

heist_programs_of(stress stress_)
heist_programs_of(bench bench_)
heist_programs_of(examples example_)

add_custom_target(tools)
file(GLOB tools CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/tools/*/*.c")
set(tool_folders "")
foreach(source IN LISTS tools)
    get_filename_component(tool "${source}" DIRECTORY)
    list(APPEND tool_folders "${tool}")
endforeach()
list(REMOVE_DUPLICATES tool_folders)
foreach(tool IN LISTS tool_folders)
    get_filename_component(name "${tool}" NAME)
    if(EXISTS "${tool}/CMakeLists.txt")
        add_subdirectory("${tool}")
        continue()
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${tool}/*.c")
    heist_program(heist-${name} SOURCES ${sources})
    target_include_directories(heist-${name} PRIVATE "${tool}")
    add_dependencies(tools heist-${name})
endforeach()

# An example with a file of expected output beside it is a test.
if(HEIST_TESTS)
    file(GLOB expected CONFIGURE_DEPENDS "${CMAKE_SOURCE_DIR}/examples/*.expected")
    foreach(file IN LISTS expected)
        get_filename_component(name "${file}" NAME_WE)
        if(NOT TARGET example_${name})
            continue()
        endif()
        heist_add_test(example/${name} LABELS example COMMAND
            "${CMAKE_SOURCE_DIR}/tests/support/check_output" "${file}" ${HEIST_TEST_LAUNCHER}
            "$<TARGET_FILE:example_${name}>")
        set_tests_properties(example/${name} PROPERTIES SKIP_RETURN_CODE 77)
    endforeach()
endif()

# What a task finds on the other thread after a move.
if(HEIST_TESTS)
    include("${CMAKE_SOURCE_DIR}/tests/migration/tests.cmake")
endif()

# The main job, made small, and the server that it leaves running; where no observer slows it down.
if(HEIST_TESTS AND NOT HEIST_SANITIZE AND NOT HEIST_COVERAGE AND NOT HEIST_VALGRIND AND NOT HEIST_SEEDED AND
   NOT CMAKE_CROSSCOMPILING)
    heist_add_test(meta/demo LABELS meta COMMAND "${CMAKE_SOURCE_DIR}/tests/demo/check" "$<TARGET_FILE:heist-demo>")
endif()
