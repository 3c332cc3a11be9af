# Parts of heist that stand on a package of their own: a library each, beside the core.
#
# heist_part(NAME PACKAGE <of pkg-config, with >=version> DESCRIPTION <text>) makes of src/NAME/ and include/heist/NAME.h
#   libheist-NAME.so (target heist_NAME, installed as heist::NAME), libheist-NAME.a (heist_NAME_static),
#   heist-NAME.pc, and the component NAME of find_package(heist).
# Where the package is missing the part is left out, and with it its header, tests, examples and programs.

find_package(PkgConfig QUIET)

function(heist_part name)
    cmake_parse_arguments(PARSE_ARGV 1 arg "" "PACKAGE;DESCRIPTION" "")
    if(NOT PKG_CONFIG_FOUND OR CMAKE_CROSSCOMPILING)
        message(STATUS "libheist-${name} is left out: no pkg-config for this target")
        return()
    endif()
    pkg_check_modules(HEIST_${name} QUIET IMPORTED_TARGET GLOBAL ${arg_PACKAGE})
    if(NOT HEIST_${name}_FOUND)
        message(STATUS "libheist-${name} is left out: pkg-config finds no ${arg_PACKAGE}")
        return()
    endif()
    file(GLOB sources CONFIGURE_DEPENDS "${CMAKE_CURRENT_SOURCE_DIR}/src/${name}/*.c")
    heist_object_library(heist_${name}_objects ${sources})
    target_link_libraries(heist_${name}_objects PRIVATE PkgConfig::HEIST_${name})
    add_library(heist_${name} SHARED $<TARGET_OBJECTS:heist_${name}_objects>)
    add_library(heist_${name}_static STATIC $<TARGET_OBJECTS:heist_${name}_objects>)
    set_target_properties(heist_${name} PROPERTIES OUTPUT_NAME heist-${name} EXPORT_NAME ${name} LINKER_LANGUAGE C
                          VERSION ${heist_version} SOVERSION ${heist_soversion})
    # The core lies beside it, wherever the tree is moved to.
    set_target_properties(heist_${name} PROPERTIES INSTALL_RPATH "$ORIGIN")
    set_target_properties(heist_${name}_static PROPERTIES OUTPUT_NAME heist-${name} EXPORT_NAME ${name}_static
                          LINKER_LANGUAGE C)
    target_link_libraries(heist_${name} PUBLIC heist)
    target_link_libraries(heist_${name}_static PUBLIC heist_static)
    foreach(lib heist_${name} heist_${name}_static)
        target_link_libraries(${lib} PRIVATE $<BUILD_INTERFACE:heist_flags> PkgConfig::HEIST_${name} Threads::Threads)
    endforeach()
    if(NOT HEIST_SANITIZE)
        target_link_options(heist_${name} PRIVATE -Wl,-z,defs)
    endif()
    target_link_options(heist_${name} PRIVATE -Wl,-z,noexecstack -Wl,--as-needed)
    add_library(heist::${name} ALIAS heist_${name})
    add_library(heist::${name}_static ALIAS heist_${name}_static)

    set(heist_part_name ${name})
    set(heist_part_package ${arg_PACKAGE})
    string(REPLACE ">=" " >= " heist_part_requires "${arg_PACKAGE}")
    set(heist_part_description "${arg_DESCRIPTION}")
    configure_file(cmake/heist-part.pc.in heist-${name}.pc @ONLY)
    configure_file(cmake/heist-part.cmake.in heist_${name}.cmake @ONLY)
    install(FILES include/heist/${name}.h DESTINATION "${CMAKE_INSTALL_INCLUDEDIR}/heist")
    install(TARGETS heist_${name} heist_${name}_static EXPORT heist_${name}Targets
            LIBRARY DESTINATION "${CMAKE_INSTALL_LIBDIR}" ARCHIVE DESTINATION "${CMAKE_INSTALL_LIBDIR}")
    install(EXPORT heist_${name}Targets NAMESPACE heist:: DESTINATION "${heist_cmakedir}")
    install(FILES "${CMAKE_CURRENT_BINARY_DIR}/heist_${name}.cmake" DESTINATION "${heist_cmakedir}")
    install(FILES "${CMAKE_CURRENT_BINARY_DIR}/heist-${name}.pc" DESTINATION "${CMAKE_INSTALL_LIBDIR}/pkgconfig")
endfunction()

# heist_parts_of(SOURCE FOUND MISSING): the static libraries of the parts whose headers a source includes, and the
# names of those that are left out of this build.
function(heist_parts_of source found missing)
    set(libraries "")
    set(absent "")
    foreach(part IN LISTS heist_parts)
        file(STRINGS "${source}" line REGEX "^#include <heist/${part}.h>" LIMIT_COUNT 1)
        if(line AND TARGET heist_${part}_static)
            list(APPEND libraries heist_${part}_static)
        elseif(line)
            list(APPEND absent ${part})
        endif()
    endforeach()
    set(${found} "${libraries}" PARENT_SCOPE)
    set(${missing} "${absent}" PARENT_SCOPE)
endfunction()
