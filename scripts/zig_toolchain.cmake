# The wheel's compiler: zig's clang, libc++ and linker, against the symbols of an old glibc. Read by scripts/wheel.sh, which
# sets FLEXKV_ZIG (the program), FLEXKV_GLIBC (the oldest glibc to run on, e.g. 2.28) and
# FLEXKV_PYTHON_INCLUDE (a folder of headers that Python includes, or nothing).
set(target ${CMAKE_HOST_SYSTEM_PROCESSOR}-linux-gnu.$ENV{FLEXKV_GLIBC})
set(CMAKE_CXX_COMPILER $ENV{FLEXKV_ZIG} c++ -target ${target})
# Archives too, so that nothing but zig is needed.
set(CMAKE_CXX_ARCHIVE_CREATE "$ENV{FLEXKV_ZIG} ar qc <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_APPEND "$ENV{FLEXKV_ZIG} ar q <TARGET> <OBJECTS>")
set(CMAKE_CXX_ARCHIVE_FINISH "$ENV{FLEXKV_ZIG} ranlib <TARGET>")
set(CMAKE_MODULE_LINKER_FLAGS_INIT "-s")
if(NOT "$ENV{FLEXKV_PYTHON_INCLUDE}" STREQUAL "")
  set(CMAKE_CXX_FLAGS_INIT "-isystem $ENV{FLEXKV_PYTHON_INCLUDE}")
endif()
