// What the kernels are given; csrc/cuda/kernel_launch.cpp has the same.
#pragma once
#include <cstdint>

constexpr unsigned max_ids = 960;

struct Unit {
  std::uint64_t base;    // of block 0
  std::uint64_t stride;  // from block to block
  std::uint32_t offset;  // in the slot
  std::uint32_t bytes;
};

struct Stage {
  const Unit* units;
  std::uint64_t memory;  // slot i begins at memory + i * slot_stride
  std::uint64_t slot_stride;
  std::uint32_t units_per_block;
  std::uint32_t num_blocks;
  std::uint32_t has_slots;     // else the i-th block's slot is i
  std::uint32_t ids[max_ids];  // of the blocks; with slots, theirs from the middle on
};
