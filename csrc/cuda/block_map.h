// BlockMap: where the chunks of a layout's blocks lie, as the mechanisms of a GPU read it; and SlotPart, a stretch of a
// slot. Thread safety: immutable.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "cuda/gpu_device.h"
#include "cuda/unit_table.h"
#include "transfer/device_layout.h"

namespace flexkv::cuda {

// Some adjacent units of a slot, and the bytes of the slot that they cover. Parts are copied like whole slots: what is
// beside them on either side stays as it is.
struct SlotPart {
  std::uint32_t first_unit = 0;
  std::uint32_t num_units = 0;
  std::uint64_t begin_byte = 0;
  std::uint64_t bytes = 0;

  bool operator==(const SlotPart&) const = default;
};

struct BlockMap {
  // `like`: its blocks are copied in no way in which those of that one are not. Throws Error, std::invalid_argument.
  // REQUIRES: the thread has entered, as for the destructor.
  BlockMap(const GpuDevice& device, DeviceLayout layout_in, const BlockMap* like = nullptr);
  BlockMap(const BlockMap&) = delete;
  BlockMap& operator=(const BlockMap&) = delete;

  [[nodiscard]] SlotPart whole() const { return {0, static_cast<std::uint32_t>(table.units.size()), 0, slot_bytes}; }
  // These units. REQUIRES: they exist.
  [[nodiscard]] SlotPart part(std::uint32_t first_unit, std::uint32_t num_units) const;
  // The same as parts of at most so many bytes. REQUIRES: a unit has no more.
  [[nodiscard]] std::vector<SlotPart> pieces(const SlotPart& part, std::uint64_t most_bytes) const;
  // What the speed of its copies depends on, as a name: layouts of one class are copied alike.
  [[nodiscard]] std::string layout_class() const;

  const DeviceLayout layout;
  const UnitTable table;
  const std::uint32_t word_bytes;
  const std::uint64_t slot_bytes;
  // The copy engine takes no copy that reaches from one allocation into another, however they touch.
  const bool chunks_are_within_allocations;
  // How far it is from each plane to the next, when they are equally far apart, of equal chunks, in one allocation, and
  // no farther than the driver takes rows to be; else 0.
  const std::uint64_t plane_pitch_bytes;
  const GpuMemory device_table;  // the table's units, for kernels
};

}  // namespace flexkv::cuda
