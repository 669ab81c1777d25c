// The kernels that gather a block's chunks out of an engine's tensors into a stage, and scatter them back. In the place
// of a stage there may be the host's own memory: then each block has a slot number, too.
// scripts/cuda_kernels.sh makes csrc/cuda/kernels_ptx.h of this; the driver compiles that for the GPU it finds.
//
// A warp takes one unit of one block at a time: a stretch of one chunk. Which units a block has is a table that is made
// once from the layout (csrc/cuda/unit_table.h), so that any layout is copied by the same few instructions. Loads and
// stores bypass the L1 cache: a stage is written by copies that it does not hear of. The numbers come with the launch.
#include "stage_argument.cuh"

template <typename Word>
__device__ void copy_words(Word* to, const Word* from, unsigned num_words, unsigned lane) {
  constexpr unsigned in_flight = 4;
  unsigned i = lane;
  for (; i + 32 * (in_flight - 1) < num_words; i += 32 * in_flight) {
    Word words[in_flight];
#pragma unroll
    for (unsigned k = 0; k < in_flight; ++k) words[k] = __ldcg(from + i + 32 * k);
#pragma unroll
    for (unsigned k = 0; k < in_flight; ++k) __stcg(to + i + 32 * k, words[k]);
  }
  for (; i < num_words; i += 32) __stcg(to + i, __ldcg(from + i));
}

template <typename Word, bool is_gather>
__device__ void copy_units(const Stage& stage) {
  const unsigned lane = threadIdx.x % 32;
  const unsigned num_warps = gridDim.x * (blockDim.x / 32);
  const unsigned num_units = stage.num_blocks * stage.units_per_block;
  for (unsigned unit = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32; unit < num_units; unit += num_warps) {
    const unsigned block = unit / stage.units_per_block;
    const Unit what = stage.units[unit - block * stage.units_per_block];
    const auto device = reinterpret_cast<Word*>(what.base + stage.ids[block] * what.stride);
    const std::uint64_t slot = stage.has_slots ? stage.ids[max_ids / 2 + block] : block;
    const auto staged = reinterpret_cast<Word*>(stage.memory + slot * stage.slot_stride + what.offset);
    const unsigned num_words = what.bytes / sizeof(Word);
    if (is_gather) {
      copy_words(staged, device, num_words, lane);
    } else {
      copy_words(device, staged, num_words, lane);
    }
  }
}

#define FLEXKV_KERNELS(suffix, Word)                                                        \
  extern "C" __global__ void __launch_bounds__(1024) gather_##suffix(const __grid_constant__ Stage stage) {  \
    copy_units<Word, true>(stage);                                                          \
  }                                                                                         \
  extern "C" __global__ void __launch_bounds__(1024) scatter_##suffix(const __grid_constant__ Stage stage) { \
    copy_units<Word, false>(stage);                                                         \
  }
FLEXKV_KERNELS(16, uint4)
FLEXKV_KERNELS(4, unsigned)
FLEXKV_KERNELS(1, unsigned char)
