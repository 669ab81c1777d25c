// Entry points of the binding areas. Bindings check shapes and types, release the GIL, call, and translate errors;
// they know nothing of algorithms.
#pragma once
#include <nanobind/nanobind.h>

namespace flexkv {
void bind_cache(nanobind::module_& m);     // bind_cache.cpp
void bind_hash(nanobind::module_& m);      // bind_hash.cpp, called by bind_cache
void bind_transfer(nanobind::module_& m);  // bind_transfer.cpp
void bind_storage(nanobind::module_& m);   // bind_storage.cpp
void bind_inspect(nanobind::module_& m);   // bind_inspect.cpp
void bind_agent(nanobind::module_& m);     // bind_agent.cpp
}  // namespace flexkv
