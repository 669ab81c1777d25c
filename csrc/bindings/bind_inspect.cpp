// Bindings of what a person asks of an SSD directory.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "bindings/array_results.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "storage/ssd_inspect.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

using Release = nb::call_guard<GilRelease>;

// A reader and the records that it has read: rows stay on this side.
struct Inspection {
  Inspection(const std::string& root, const std::string& fingerprint) : reader(root, fingerprint) {}
  SsdReader reader;
  SsdRecords records;
};

void open_inspection(Inspection* self, const std::string& root, const std::string& fingerprint) {
  const GilRelease release;
  new (self) Inspection(root, fingerprint);
}

// A name on disk is bytes that somebody else may have written.
nb::object model_of(const SsdHeader& header) {
  return nb::steal(
      PyUnicode_DecodeUTF8(header.model.data(), static_cast<Py_ssize_t>(header.model.size()), "backslashreplace"));
}

std::uint64_t slot_bytes_of(const SsdListing& listing) {
  return std::accumulate(listing.header.extent_bytes.begin(), listing.header.extent_bytes.end(), std::uint64_t{0});
}

nb::tuple read_records(Inspection& self) {
  std::vector<std::uint64_t> slots;
  std::vector<std::uint64_t> used_at_us;
  std::vector<std::uint32_t> expiry_s;
  std::vector<BlockKey> keys;
  std::vector<std::uint64_t> damaged;
  {
    const GilRelease release;
    self.records = self.reader.records();
    for (const auto& [slot, record] : self.records.valid) {
      slots.push_back(slot);
      used_at_us.push_back(record.used_at_us);
      expiry_s.push_back(record.expiry_s);
      keys.push_back(record.key);
    }
    damaged = self.records.damaged;
  }
  return nb::make_tuple(to_column(std::move(slots)), to_column(std::move(used_at_us)), to_column(std::move(expiry_s)),
                        to_array(std::move(keys)), to_column(std::move(damaged)), self.records.num_other_lives);
}

auto check(Inspection& self, std::uint64_t first, std::uint64_t count) {
  const std::vector<ScannedRecord>& records = self.records.valid;
  if (first > records.size() || count > records.size() - first) {
    throw std::invalid_argument("rows " + std::to_string(first) + " to " + std::to_string(first + count) +
                                " are not there; read_records gave " + std::to_string(records.size()));
  }
  std::vector<std::uint8_t> states;
  {
    const GilRelease release;
    for (std::uint64_t row = first; row < first + count; ++row) {
      states.push_back(static_cast<std::uint8_t>(self.reader.check(records[row])));
    }
  }
  return to_column(std::move(states));
}

void bind_findings(nb::module_& m) {
  nb::enum_<HeaderState>(m, "SsdHeaderState", nb::is_arithmetic(), "What the header of a record file says of it.")
      .value("OK", HeaderState::ok)
      .value("EMPTY", HeaderState::empty)
      .value("FOREIGN", HeaderState::foreign, "Not a file of ours, or one that cannot be read.")
      .value("OTHER_VERSION", HeaderState::other_version)
      .value("DAMAGED", HeaderState::damaged);
  nb::enum_<SsdCheck>(m, "SsdCheck", nb::is_arithmetic(), "What was found of a block.")
      .value("WHOLE", SsdCheck::whole)
      .value("DAMAGED", SsdCheck::damaged, "Its bytes are not those of its record.")
      .value("CHANGED", SsdCheck::changed, "Written, emptied or forgotten meanwhile.")
      .value("UNREADABLE", SsdCheck::unreadable, "The device gave an error.");
  nb::class_<SsdListing>(m, "SsdListing", "One sub-directory of an SSD directory; a value.")
      .def_ro("fingerprint", &SsdListing::fingerprint)
      .def_ro("path", &SsdListing::path)
      .def_ro("state", &SsdListing::state)
      .def_ro("is_busy", &SsdListing::is_busy, "Somebody serves from it.")
      .def_ro("footprint_bytes", &SsdListing::footprint_bytes, "Of its files.")
      .def_ro("used_at_s", &SsdListing::used_at_s, "When it was last opened or closed for serving, since 1970; or 0.")
      .def_prop_ro(
          "model", [](const SsdListing& listing) { return model_of(listing.header); },
          nb::sig("def model(self) -> str"), "As the rest, when `state` is OK.")
      .def_prop_ro("num_slots", [](const SsdListing& listing) { return listing.header.num_slots; })
      .def_prop_ro("tokens_per_block", [](const SsdListing& listing) { return listing.header.tokens_per_block; })
      .def_prop_ro("slot_bytes", &slot_bytes_of);
  nb::class_<SsdCleared>(m, "SsdCleared", "Fingerprints, by what became of them; a value.")
      .def_ro("removed", &SsdCleared::removed)
      .def_ro("busy", &SsdCleared::busy, "Served from: left as they are.")
      .def_ro("foreign", &SsdCleared::foreign, "Not ours: left as they are.");
}

}  // namespace

void bind_inspect(nb::module_& m) {
  bind_findings(m);
  m.def("list_ssd_directories", &list_ssd_directories, "root"_a, Release(),
        "What lies below an SSD directory, in the order of fingerprints; nothing where there is no cache. OSError.");
  m.def(
      "clear_ssd_directories", &clear_ssd_directories, "root"_a, "fingerprint"_a = "", Release(),
      "Remove one sub-directory, or all. SsdBusyError: another process changes them, try again. ValueError, OSError.");
  nb::class_<Inspection>(m, "SsdReader", "Reads one sub-directory beside whoever serves from it. For one thread.")
      .def("__init__", &open_inspection, "root"_a, "fingerprint"_a,
           "ValueError: there is none, or its header is not OK. OSError.")
      .def("read_records", &read_records,
           nb::sig("def read_records(self) -> tuple[NDArray[numpy.uint64], NDArray[numpy.uint64], "
                   "NDArray[numpy.uint32], NDArray[numpy.uint8], NDArray[numpy.uint64], int]"),
           "In the order of use: slots, used_at_us, expiry_s and keys [n, 16] of blocks; then the slots of damaged "
           "records, and how many records are of before the store was last emptied. OSError.")
      .def("check", &check, "first"_a, "count"_a,
           nb::sig("def check(self, first: int, count: int) -> NDArray[numpy.uint8]"),
           "An SsdCheck for each of the blocks that read_records gave last, from row `first` on. Reads all their "
           "bytes.");
}

}  // namespace flexkv
