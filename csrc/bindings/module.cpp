// The extension module `flexkv._core`: each area binds its own names.
#include "bindings/bindings.h"

// What the macro makes is nanobind's.
// NOLINTNEXTLINE(misc-use-anonymous-namespace,cppcoreguidelines-avoid-non-const-global-variables)
NB_MODULE(_core, m) {
  // At the end of the interpreter frames of daemon threads still hold objects: nothing a user could mend.
  nanobind::set_leak_warnings(false);
  m.doc() = "Native core of FlexKV.";
  flexkv::bind_cache(m);
  flexkv::bind_storage(m);
  flexkv::bind_inspect(m);
  flexkv::bind_transfer(m);
  flexkv::bind_agent(m);
}
