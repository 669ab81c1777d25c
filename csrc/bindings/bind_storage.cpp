// Bindings of the SSD tier.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_args.h"
#include "bindings/array_results.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "bindings/store_type.h"
#include "cache/index_entry.h"
#include "storage/crc64.h"
#include "storage/disk_probe.h"
#include "storage/ssd_room.h"
#include "transfer/os_error.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

using Release = nb::call_guard<GilRelease>;

void open_store(Store* self, std::vector<std::string> directories, std::string fingerprint, std::string model,
                std::vector<std::uint64_t> extent_bytes, std::uint32_t tokens_per_block, std::uint64_t capacity_bytes,
                std::string io_engine, unsigned read_depth, unsigned write_depth) {
  const SsdStoreConfig config = {std::move(directories),
                                 std::move(fingerprint),
                                 std::move(model),
                                 std::move(extent_bytes),
                                 tokens_per_block,
                                 capacity_bytes,
                                 std::move(io_engine),
                                 read_depth,
                                 write_depth};
  const GilRelease release;
  new (self) Store(config);
}

nb::tuple scan(Store& store) {
  SsdScan found;
  {
    const GilRelease release;
    found = store.scan();
  }
  return nb::make_tuple(to_column(std::move(found.slots)), to_array(std::move(found.keys)),
                        to_array(std::move(found.parents)), to_column(std::move(found.expiry_s)),
                        to_column(std::move(found.tenants)), to_column(std::move(found.groups)),
                        to_column(std::move(found.priorities)));
}

// A key as bytes, or as a row of an array of keys.
BlockKey key_of(nb::handle key) {
  if (PyBytes_Check(key.ptr()) != 0) return key_arg(key, "key");
  const ColumnArg<std::uint8_t> row(key, "key");
  BlockKey block_key;
  if (row.span().size() != sizeof(block_key)) {
    throw nb::value_error(("key must have 16 bytes, got " + std::to_string(row.span().size())).c_str());
  }
  std::memcpy(&block_key, row.span().data(), sizeof(block_key));
  return block_key;
}

void touch(Store& store, std::int64_t slot, nb::handle key, std::int64_t expiry_s, std::int64_t priority) {
  const BlockKey block_key = key_of(key);
  const auto expiry = static_cast<std::uint32_t>(int_arg(expiry_s, "expiry_s", 0, ssd_never_expires));
  const auto at_least = static_cast<std::uint8_t>(int_arg(priority, "priority", 0, num_priorities - 1));
  const GilRelease release;
  store.touch(slot, block_key, expiry, at_least);
}

std::uint64_t checksum(nb::handle data) {
  const BufferArg bytes(data, "data", "uint8", "Bbc", 1, 1);
  const GilRelease release;
  return crc64({static_cast<const std::byte*>(bytes.data()), bytes.shape(0)});
}

double disk_seconds(const DestroyedWithoutGil<HostPool>& pool, const std::string& path, nb::handle places,
                    unsigned depth, bool is_write, const std::string& io_engine) {
  const Int64Arg slots(places, "places");
  const GilRelease release;
  return time_disk({path, io_engine, depth, is_write}, pool, slots.span());
}

void renew(Store& store) {
  const int error = store.renew();
  if (error != 0) throw_errno(error, "the SSD store could not be emptied");
}

void translate_config_error(const std::exception_ptr& pointer, void* /*payload*/) {
  try {
    std::rethrow_exception(pointer);
  } catch (const SsdConfigError& error) {
    PyErr_SetString(PyExc_ValueError, error.what());
  }
}

void bind_device_info(nb::module_& m) {
  nb::class_<SsdDeviceInfo>(m, "SsdDeviceInfo", "One directory of an SsdStore and what it has done; a value.")
      .def_ro("path", &SsdDeviceInfo::path)
      .def_ro("io_engine", &SsdDeviceInfo::io_engine, "'io_uring' or 'threads'.")
      .def_ro("why_not_io_uring", &SsdDeviceInfo::why_not_io_uring, "Empty when it is io_uring, or was not asked for.")
      .def_ro("is_direct", &SsdDeviceInfo::is_direct, "O_DIRECT is in force.")
      .def_ro(
          "origin", &SsdDeviceInfo::origin,
          "What was found: 'warm', 'made', 'other geometry', 'other version' or 'damaged'; all but 'warm' are empty.")
      .def_ro("removed", &SsdDeviceInfo::removed, "Fingerprints that had to make room.")
      .def_ro("queued_reads", &SsdDeviceInfo::queued_reads, "Blocks that were not started.")
      .def_ro("queued_writes", &SsdDeviceInfo::queued_writes)
      .def_ro("in_flight", &SsdDeviceInfo::in_flight, "Blocks.")
      .def_ro("queued_touches", &SsdDeviceInfo::queued_touches)
      .def_ro("dropped_touches", &SsdDeviceInfo::dropped_touches, "There were too many: uses are not on disk.")
      .def_ro("bytes_read", &SsdDeviceInfo::bytes_read, "Of good blocks.")
      .def_ro("bytes_written", &SsdDeviceInfo::bytes_written)
      .def_ro("read_errors", &SsdDeviceInfo::read_errors, "Blocks.")
      .def_ro("write_errors", &SsdDeviceInfo::write_errors)
      .def_ro("bad_checksums", &SsdDeviceInfo::bad_checksums);
}

}  // namespace

void bind_storage(nb::module_& m) {
  const nb::exception<SsdBusy> busy_error(m, "SsdBusyError", PyExc_RuntimeError);
  nb::register_exception_translator(translate_config_error);
  bind_device_info(m);
  m.def("ssd_footprint_bytes", &ssd_footprint_bytes, "num_slots"_a, "slot_bytes"_a,
        "What so many slots take in one directory, with their records.");
  m.def("crc64", &checksum, "data"_a.none(), nb::sig("def crc64(data: bytes | NDArray[numpy.uint8]) -> int"),
        "CRC-64/NVME of the bytes: the checksum of blocks and records on disk.");
  m.def("crc64_implementation", &crc64_implementation,
        "'vpclmulqdq-512', 'vpclmulqdq-256', 'pclmulqdq' or 'portable'.");
  m.def("time_disk", &disk_seconds, "pool"_a, "path"_a, "places"_a.none(), "depth"_a, "is_write"_a,
        "io_engine"_a = "auto",
        nb::sig("def time_disk(pool: HostPool, path: str, places: " SLOTS
                ", depth: int, is_write: bool, io_engine: str = 'auto') -> float"),
        "Seconds that a disk engine alone takes to move all slots of a pool to or from places of a file, in units of a "
        "slot; what is written over is gone. For benchmarks. OSError, ValueError.");
  nb::class_<Store>(m, "SsdStore", "The bytes of the SSD tier; see csrc/storage/ssd_store.h.")
      .def("__init__", &open_store, "directories"_a, "fingerprint"_a, "model"_a, "extent_bytes"_a, "tokens_per_block"_a,
           "capacity_bytes"_a, "io_engine"_a = "auto", "read_depth"_a = 16, "write_depth"_a = 8,
           "Open the directories. SsdBusyError: somebody serves from one, try again later. ValueError: it cannot work "
           "as configured. OSError.")
      .def_prop_ro("num_slots", &SsdStore::num_slots)
      .def_prop_ro("slot_bytes", &SsdStore::slot_bytes)
      .def("scan", &scan,
           nb::sig("def scan(self) -> tuple[NDArray[numpy.int64], NDArray[numpy.uint8], "
                   "NDArray[numpy.uint8], NDArray[numpy.uint32], NDArray[numpy.uint16], NDArray[numpy.uint8], "
                   "NDArray[numpy.uint8]]"),
           "What lies in it, also what is expired: slots, keys [n, 16], parents [n, 16], expiry_s, tenants, groups, "
           "priorities; the least recently used first. Once, before set_disk. OSError.")
      .def(
          "touch", &touch, "slot"_a, "key"_a.none(), "expiry_s"_a = 0, "priority"_a = 0,
          nb::sig("def touch(self, slot: int, key: bytes | NDArray[numpy.uint8], expiry_s: int = 0, priority: int = 0)"
                  " -> None"),
          "Say that a block was used elsewhere: its record gets the time of now, and at least that expiry (since 1970; "
          "4294967295: never) and priority. `key`: 16 bytes, or shape [16]. It is written later, at the latest by "
          "`stop`; nothing happens when the slot does not hold that block. Does not block. ValueError.")
      .def("renew", &renew, Release(), "Forget all blocks, durably; also those of ops in flight. OSError.")
      .def("stop", &SsdStore::stop, "timeout_s"_a, Release(),
           "Drop what is not started, drain what is, make all durable. False when I/O was still in flight. Idempotent.")
      .def_prop_ro("is_stopped", &SsdStore::is_stopped, "stop was called.")
      .def("devices", &SsdStore::devices, "One SsdDeviceInfo for each directory.");
}

}  // namespace flexkv
