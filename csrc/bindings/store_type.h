// The SsdStore as Python holds it: what destroys it waits for I/O, without the GIL.
#pragma once
#include "bindings/gil.h"
#include "storage/ssd_store.h"

namespace flexkv {

using Store = DestroyedWithoutGil<SsdStore>;

}  // namespace flexkv
