// The kernels of csrc/cuda/gather.cu once more, for GPUs with asynchronous copies of whole pieces (sm_90 and newer), so
// slim that they run beside the engine's: a group is one thread, which has the copy unit move a piece at a time through
// 4 KiB of shared memory. Matrix products take all but 5 KiB of that (of 228) and all registers but those of one or two
// warps of at most 32, and leave a multiprocessor only when they are done; what needs more waits for that.
// REQUIRES: all addresses and lengths are multiples of 16.
#include "stage_argument.cuh"

constexpr unsigned piece_bytes = 2048;
constexpr unsigned num_pieces = 2;  // one is fetched while another one is put

__device__ unsigned shared_address(const void* pointer) {
  return static_cast<unsigned>(__cvta_generic_to_shared(pointer));
}

__device__ void fetch(unsigned piece, std::uint64_t from, unsigned bytes, unsigned arrived) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(arrived), "r"(bytes) : "memory");
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(piece),
      "l"(from), "r"(bytes), "r"(arrived)
      : "memory");
}

__device__ void wait_for(unsigned arrived, unsigned parity) {
  unsigned is_there = 0;
  while (is_there == 0) {
    asm volatile(
        "{\n"
        ".reg .pred there;\n"
        "mbarrier.try_wait.parity.shared::cta.b64 there, [%1], %2;\n"
        "selp.u32 %0, 1, 0, there;\n"
        "}"
        : "=r"(is_there)
        : "r"(arrived), "r"(parity)
        : "memory");
  }
}

// The piece may be written again once this has returned.
__device__ void put(std::uint64_t to, unsigned piece, unsigned bytes) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(piece), "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// The pieces of a group's units, one after the other. The next unit's entry of the table is read ahead.
struct Pieces {
  const Stage& stage;
  const unsigned num_units;
  unsigned unit;  // that `what` is of
  unsigned block = 0;
  Unit what = {};
  std::uint64_t device = 0;
  std::uint64_t staged = 0;
  unsigned left = 0;  // bytes of the unit

  __device__ explicit Pieces(const Stage& of)
      : stage(of), num_units(of.num_blocks * of.units_per_block), unit(blockIdx.x) {
    read_ahead();
  }
  __device__ void read_ahead() {
    if (unit >= num_units) return;
    block = unit / stage.units_per_block;
    what = stage.units[unit - block * stage.units_per_block];
  }
  // Bytes of the next piece; 0: there is none.
  __device__ unsigned next() {
    if (left == 0) {
      if (unit >= num_units) return 0;
      device = what.base + stage.ids[block] * what.stride;
      staged = stage.memory + block * stage.slot_stride + what.offset;
      left = what.bytes;
      unit += gridDim.x;
      read_ahead();
    }
    return min(left, piece_bytes);
  }
  __device__ void pass(unsigned bytes) {
    device += bytes;
    staged += bytes;
    left -= bytes;
  }
};

template <bool is_gather>
__device__ void copy_units(const Stage& stage) {
  __shared__ __align__(128) unsigned char memory[num_pieces * piece_bytes];
  __shared__ std::uint64_t barriers[num_pieces];
  const unsigned pieces_at = shared_address(memory);
  const unsigned arrived_at = shared_address(barriers);
  for (unsigned i = 0; i < num_pieces; ++i) {
    asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(arrived_at + i * 8) : "memory");
  }
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
  Pieces pieces(stage);
  std::uint64_t to[num_pieces];
  unsigned bytes[num_pieces];
  unsigned parity = 0;
  const auto fetch_next = [&](unsigned i) {
    bytes[i] = pieces.next();
    if (bytes[i] == 0) return;
    to[i] = is_gather ? pieces.staged : pieces.device;
    fetch(pieces_at + i * piece_bytes, is_gather ? pieces.device : pieces.staged, bytes[i], arrived_at + i * 8);
    pieces.pass(bytes[i]);
  };
#pragma unroll
  for (unsigned i = 0; i < num_pieces; ++i) fetch_next(i);
#pragma unroll 1
  while (bytes[0] > 0) {
#pragma unroll
    for (unsigned i = 0; i < num_pieces; ++i) {
      if (bytes[i] == 0) continue;
      wait_for(arrived_at + i * 8, parity);
      put(to[i], pieces_at + i * piece_bytes, bytes[i]);
      fetch_next(i);
    }
    parity ^= 1;
  }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
}

extern "C" __global__ void __launch_bounds__(32) slim_gather(const __grid_constant__ Stage stage) {
  copy_units<true>(stage);
}
extern "C" __global__ void __launch_bounds__(32) slim_scatter(const __grid_constant__ Stage stage) {
  copy_units<false>(stage);
}
