// The kernel's interface of io_uring, as far as it is used here. Declared by ourselves, since the headers we are built
// with may be older than the kernel we run on; csrc/tests/test_uring.cpp compares it with the system's header.
#pragma once
#include <cstdint>

namespace flexkv::uring {

struct Sqe {  // what is asked
  std::uint8_t opcode = 0;
  std::uint8_t flags = 0;
  std::uint16_t ioprio = 0;
  std::int32_t fd = -1;  // or the index of a registered file
  std::uint64_t off = 0;
  std::uint64_t addr = 0;  // of the buffer, or of the iovecs
  std::uint32_t len = 0;   // bytes, or the number of iovecs
  std::uint32_t op_flags = 0;
  std::uint64_t user_data = 0;
  std::uint16_t buf_index = 0;
  std::uint16_t personality = 0;
  std::uint32_t file_index = 0;
  std::uint64_t unused[2] = {};
};
static_assert(sizeof(Sqe) == 64);

struct Cqe {  // what became of it
  std::uint64_t user_data;
  std::int32_t res;
  std::uint32_t flags;
};
static_assert(sizeof(Cqe) == 16);

struct SqOffsets {
  std::uint32_t head, tail, ring_mask, ring_entries, flags, dropped, array, resv1;
  std::uint64_t resv2;
};
struct CqOffsets {
  std::uint32_t head, tail, ring_mask, ring_entries, overflow, cqes, flags, resv1;
  std::uint64_t resv2;
};
struct Params {
  std::uint32_t sq_entries, cq_entries, flags, sq_thread_cpu, sq_thread_idle, features, wq_fd, resv[3];
  SqOffsets sq_off;
  CqOffsets cq_off;
};
static_assert(sizeof(Params) == 120);

struct KernelTimespec {
  std::int64_t tv_sec, tv_nsec;
};
struct GeteventsArg {
  std::uint64_t sigmask;
  std::uint32_t sigmask_sz, pad;
  std::uint64_t ts;
};
struct RsrcRegister {
  std::uint32_t nr, flags;
  std::uint64_t resv2, data, tags;
};
struct RsrcUpdate2 {
  std::uint32_t offset, resv;
  std::uint64_t data, tags;
  std::uint32_t nr, resv2;
};

inline constexpr std::uint8_t op_nop = 0, op_readv = 1, op_writev = 2, op_read_fixed = 4, op_write_fixed = 5,
                              op_poll_add = 6;
inline constexpr std::uint8_t sqe_fixed_file = 1;

inline constexpr std::uint32_t setup_r_disabled = 1u << 6, setup_submit_all = 1u << 7, setup_coop_taskrun = 1u << 8,
                               setup_single_issuer = 1u << 12, setup_defer_taskrun = 1u << 13;
inline constexpr std::uint32_t feature_single_mmap = 1u << 0, feature_nodrop = 1u << 1, feature_ext_arg = 1u << 8;
inline constexpr std::uint32_t enter_getevents = 1u << 0, enter_ext_arg = 1u << 3;
inline constexpr std::uint32_t register_files = 2, register_enable_rings = 12, register_buffers2 = 15,
                               register_buffers_update = 16;
inline constexpr std::uint32_t rsrc_register_sparse = 1u << 0;
inline constexpr std::uint64_t mmap_rings = 0, mmap_sqes = 0x10000000;

}  // namespace flexkv::uring
