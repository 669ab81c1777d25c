// The kernels of csrc/cuda/gather.cu once more, for GPUs with asynchronous copies of whole pieces (sm_90 and newer), so
// slim that they run beside the engine's: a group is one thread, which has the copy unit move a piece at a time through
// 4 KiB of shared memory. A large matrix product leaves 6 KiB of that on each multiprocessor, 1 KiB of which each group
// takes besides, and registers for a warp or two of at most 32 a thread; what needs more waits until the product is
// done (docs/adr/0009-slim-kernels.md).
//
// REQUIRES: all addresses and lengths are multiples of 16; the stage has no slots.
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

// Behind the wait for the piece, which the fence tells the copy unit of. The piece may be fetched again once this has
// returned.
__device__ void put(std::uint64_t to, unsigned piece, unsigned bytes) {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  asm volatile("cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;" ::"l"(to), "r"(piece), "r"(bytes)
               : "memory");
  asm volatile("cp.async.bulk.commit_group;" ::: "memory");
  asm volatile("cp.async.bulk.wait_group.read 0;" ::: "memory");
}

// The pieces of a group's units, one after the other. The entry of the table of the unit after is read ahead.
struct Pieces {
  const Stage& stage;
  const unsigned num_units;
  // Of the current unit:
  std::uint64_t device = 0;
  std::uint64_t staged = 0;
  unsigned left = 0;  // bytes
  // Of the one after:
  unsigned unit_ahead;
  unsigned block_ahead = 0;
  Unit ahead = {};

  __device__ explicit Pieces(const Stage& of)
      : stage(of), num_units(of.num_blocks * of.units_per_block), unit_ahead(blockIdx.x) {
    read_ahead();
  }
  __device__ void read_ahead() {
    if (unit_ahead >= num_units) return;
    block_ahead = unit_ahead / stage.units_per_block;
    ahead = stage.units[unit_ahead - block_ahead * stage.units_per_block];
  }
  // Bytes of the next piece; 0: there is none.
  __device__ unsigned next() {
    if (left == 0) {
      if (unit_ahead >= num_units) return 0;
      device = ahead.base + stage.ids[block_ahead] * ahead.stride;
      staged = stage.memory + block_ahead * stage.slot_stride + ahead.offset;
      left = ahead.bytes;
      unit_ahead += gridDim.x;
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
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");  // the copy unit is to see them, too
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

extern "C" __global__ void __maxnreg__(32) slim_gather(const __grid_constant__ Stage stage) {
  copy_units<true>(stage);
}
extern "C" __global__ void __maxnreg__(32) slim_scatter(const __grid_constant__ Stage stage) {
  copy_units<false>(stage);
}
