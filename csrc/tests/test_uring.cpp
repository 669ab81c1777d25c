// What is of io_uring alone: the kernel's interface as we declare it, kernels that refuse or lack something, calls that
// fail, registered memory. The contract of disk engines is in test_disk_io.cpp.
#include <linux/io_uring.h>

#include <array>
#include <cstdio>
#include <system_error>
#include <thread>

#include "storage/uring_io.h"
#include "tests/check.h"
#include "tests/disk_io_contract.h"
#include "tests/faulty_uring.h"
#include "tests/temp_dir.h"

using namespace flexkv;
using namespace flexkv::disk_io_contract;

namespace {

#define SAME_FIELD(ours, our_field, theirs, their_field)                                    \
  static_assert(offsetof(uring::ours, our_field) == offsetof(struct theirs, their_field) && \
                sizeof(uring::ours::our_field) == sizeof(decltype(theirs{}.their_field)))
SAME_FIELD(Sqe, opcode, io_uring_sqe, opcode);
SAME_FIELD(Sqe, flags, io_uring_sqe, flags);
SAME_FIELD(Sqe, fd, io_uring_sqe, fd);
SAME_FIELD(Sqe, off, io_uring_sqe, off);
SAME_FIELD(Sqe, addr, io_uring_sqe, addr);
SAME_FIELD(Sqe, len, io_uring_sqe, len);
SAME_FIELD(Sqe, op_flags, io_uring_sqe, rw_flags);
SAME_FIELD(Sqe, user_data, io_uring_sqe, user_data);
SAME_FIELD(Sqe, buf_index, io_uring_sqe, buf_index);
SAME_FIELD(Cqe, res, io_uring_cqe, res);
SAME_FIELD(Params, flags, io_uring_params, flags);
SAME_FIELD(Params, features, io_uring_params, features);
SAME_FIELD(Params, sq_off, io_uring_params, sq_off);
SAME_FIELD(Params, cq_off, io_uring_params, cq_off);
SAME_FIELD(SqOffsets, array, io_sqring_offsets, array);
SAME_FIELD(CqOffsets, cqes, io_cqring_offsets, cqes);
static_assert(sizeof(uring::Params) == sizeof(io_uring_params));
static_assert(uring::op_nop == IORING_OP_NOP && uring::op_readv == IORING_OP_READV);
static_assert(uring::op_writev == IORING_OP_WRITEV && uring::op_read_fixed == IORING_OP_READ_FIXED);
static_assert(uring::op_write_fixed == IORING_OP_WRITE_FIXED && uring::op_poll_add == IORING_OP_POLL_ADD);
static_assert(uring::sqe_fixed_file == IOSQE_FIXED_FILE);
static_assert(uring::feature_single_mmap == IORING_FEAT_SINGLE_MMAP && uring::feature_nodrop == IORING_FEAT_NODROP);
static_assert(uring::enter_getevents == IORING_ENTER_GETEVENTS && uring::register_files == IORING_REGISTER_FILES);
static_assert(uring::mmap_rings == IORING_OFF_SQ_RING && uring::mmap_sqes == IORING_OFF_SQES);
#ifdef IORING_SETUP_DEFER_TASKRUN  // a header of 6.1 or later: it has all of it
SAME_FIELD(GeteventsArg, ts, io_uring_getevents_arg, ts);
SAME_FIELD(RsrcRegister, flags, io_uring_rsrc_register, flags);
SAME_FIELD(RsrcUpdate2, data, io_uring_rsrc_update2, data);
SAME_FIELD(RsrcUpdate2, nr, io_uring_rsrc_update2, nr);
static_assert(sizeof(uring::GeteventsArg) == sizeof(io_uring_getevents_arg));
static_assert(sizeof(uring::RsrcRegister) == sizeof(io_uring_rsrc_register));
static_assert(sizeof(uring::RsrcUpdate2) == sizeof(io_uring_rsrc_update2));
static_assert(uring::setup_r_disabled == IORING_SETUP_R_DISABLED);
static_assert(uring::setup_submit_all == IORING_SETUP_SUBMIT_ALL);
static_assert(uring::setup_coop_taskrun == IORING_SETUP_COOP_TASKRUN);
static_assert(uring::setup_single_issuer == IORING_SETUP_SINGLE_ISSUER);
static_assert(uring::setup_defer_taskrun == IORING_SETUP_DEFER_TASKRUN);
static_assert(uring::feature_ext_arg == IORING_FEAT_EXT_ARG && uring::enter_ext_arg == IORING_ENTER_EXT_ARG);
static_assert(uring::register_enable_rings == IORING_REGISTER_ENABLE_RINGS);
static_assert(uring::register_buffers2 == IORING_REGISTER_BUFFERS2);
static_assert(uring::register_buffers_update == IORING_REGISTER_BUFFERS_UPDATE);
static_assert(uring::rsrc_register_sparse == IORING_RSRC_REGISTER_SPARSE);
#endif
#undef SAME_FIELD

// A file of some pages and an engine on it whose system calls can fail.
struct Rig {
  explicit Rig(unsigned depth = 16) : depth_(depth) {
    int error = 0;
    file = posix_file_system().open(dir.file("data"), OpenMode::direct, error);
    CHECK(file != nullptr);
    CHECK_NO_ERROR(file->allocate(file_pages * page));
    out.randomize(random);
  }
  void make() {
    io = std::make_unique<UringIo>(DiskIoConfig{depth_, 1, {file.get()}}, std::make_unique<FaultyUring>(faults));
  }
  int run(bool is_write, std::vector<iovec> buffers) { return run_one(*io, *file, is_write, 0, std::move(buffers)); }
  int write_all() { return run(true, {out.all()}); }
  void check_it_works() {
    CHECK(write_all() == 0);
    in.fill(poison);
    CHECK(run(false, {in.all()}) == 0);
    CHECK(in == out);
  }

  static constexpr std::size_t file_pages = 64;
  const unsigned depth_;
  const TempDir dir;
  std::mt19937_64 random{5};
  std::unique_ptr<File> file;
  Pages out{file_pages * page};
  Pages in{file_pages * page};
  std::shared_ptr<UringFaults> faults = std::make_shared<UringFaults>();
  std::unique_ptr<UringIo> io;
};

// Fails `count` calls.
std::function<int()> failing(int error, int count) {
  return [error, left = count]() mutable { return left-- > 0 ? error : 0; };
}

void a_refused_setup_is_thrown() {
  for (const int error : {ENOSYS, EPERM, ENOMEM}) {
    Rig rig;
    rig.faults->setup_errors = {error};
    bool is_thrown = false;
    try {
      rig.make();
    } catch (const std::system_error& thrown) {
      is_thrown = thrown.code().value() == error;
    }
    CHECK(is_thrown);
  }
  Rig rig;
  rig.faults->hidden_features = uring::feature_nodrop;
  CHECK_THROWS(rig.make(), std::system_error);
  rig.faults->hidden_features = 0;
  rig.faults->unknown_setup = ~0u;
  rig.faults->setup_errors = {0, 0, EINVAL};
  CHECK_THROWS(rig.make(), std::system_error);
}

void flags_that_a_kernel_does_not_know_are_done_without() {
  for (const std::uint32_t unknown : {0u, uring::setup_defer_taskrun, ~0u}) {
    Rig rig;
    rig.faults->unknown_setup = unknown;
    rig.make();
    rig.check_it_works();
  }
}

void what_cannot_be_registered_is_done_without() {
  Rig rig;
  rig.faults->register_error = [](unsigned opcode) { return opcode == uring::register_enable_rings ? 0 : ENOMEM; };
  rig.make();
  CHECK(!rig.io->add_buffer(rig.out.all()));
  rig.check_it_works();
  CHECK(rig.faults->num_fixed_files == 0 && rig.faults->num_fixed_entries == 0);
  rig.faults->register_error = [](unsigned opcode) { return opcode == uring::register_buffers_update ? ENOMEM : 0; };
  rig.make();
  CHECK(!rig.io->add_buffer(rig.out.all()));
  rig.check_it_works();
  CHECK(rig.faults->num_fixed_files > 0 && rig.faults->num_fixed_entries == 0);
}

void registered_memory_is_used_where_a_request_lies_in_it() {
  Rig rig;
  rig.make();
  CHECK(rig.io->add_buffer({rig.out.at(8 * page), 8 * page}));
  CHECK(rig.io->add_buffer({rig.out.at(0), 8 * page}));
  const auto num_fixed = [&](std::vector<iovec> buffers) {
    const std::uint64_t before = rig.faults->num_fixed_entries;
    CHECK(rig.run(true, std::move(buffers)) == 0);
    return rig.faults->num_fixed_entries - before;
  };
  CHECK(num_fixed({{rig.out.at(0), 8 * page}}) == 1);
  CHECK(num_fixed({{rig.out.at(15 * page), page}}) == 1);
  CHECK(num_fixed({{rig.out.at(7 * page), 2 * page}}) == 0);
  CHECK(num_fixed({{rig.out.at(15 * page), 2 * page}}) == 0);
  CHECK(num_fixed({{rig.out.at(16 * page), page}}) == 0);
  CHECK(num_fixed({{rig.in.at(0), page}}) == 0);
  CHECK(num_fixed({{rig.out.at(0), page}, {rig.out.at(2 * page), page}}) == 0);
  rig.check_it_works();
}

void all_that_is_queued_is_started_by_one_call() {
  Rig rig;
  rig.make();
  for (std::uint64_t i = 0; i < rig.depth_; ++i) {
    rig.io->submit({i, rig.file.get(), true, i * page, {{rig.out.at(i * page), page}}});
  }
  CHECK(rig.faults->num_enters == 0);
  std::vector<DiskResult> results;
  rig.io->wait(results, 0);
  CHECK(rig.faults->num_enters == 1 && rig.faults->num_entries == rig.depth_);
}

void an_idle_wait_is_one_call() {
  Rig rig;
  rig.make();
  std::vector<DiskResult> results;
  rig.io->wait(results, 0.1);
  CHECK(rig.faults->num_enters == 1 && rig.faults->num_polls == 0);
}

void a_kernel_that_takes_nothing_is_an_error_of_the_requests() {
  for (const int error : {EAGAIN, EBUSY, EIO, EBADR, EINTR}) {
    Rig rig;
    rig.make();
    rig.faults->enter_error = failing(error, 16);
    CHECK(rig.write_all() == EIO);
    CHECK(rig.faults->num_enters == 16);
    rig.check_it_works();
  }
  Rig rig;  // and one that says it is well but takes nothing
  rig.make();
  rig.faults->max_consumed = [] { return 0u; };
  CHECK(rig.write_all() == EIO);
}

void what_the_kernel_has_is_waited_for_however_its_calls_fail() {
  Rig rig;
  rig.make();
  rig.faults->enter_error = [calls = 0]() mutable { return ++calls == 1 || calls > 20 ? 0 : EIO; };
  rig.io->submit({1, rig.file.get(), true, 0, {rig.out.all()}});
  std::vector<DiskResult> results;
  rig.io->wait(results, 0);
  if (results.empty()) results.push_back(one_result(*rig.io));
  CHECK(results.front().tag == 1 && results.front().error == 0);
}

void the_destructor_drains_however_calls_fail() {
  Rig rig;
  rig.make();
  rig.faults->enter_error = failing(EBUSY, 10);
  rig.io->submit({1, rig.file.get(), true, 0, {rig.out.all()}});
  rig.io.reset();
  rig.make();
  CHECK(rig.run(false, {rig.in.all()}) == 0);
  CHECK(rig.in == rig.out);
}

void wake_ends_a_wait_also_while_calls_fail() {
  Rig rig;
  rig.make();
  rig.faults->enter_error = [] { return EIO; };
  const auto start = std::chrono::steady_clock::now();
  std::vector<DiskResult> results;
  std::thread waker([&] { rig.io->wake(); });
  rig.io->wait(results, patience_s);
  waker.join();
  CHECK(results.empty() && std::chrono::steady_clock::now() - start < std::chrono::seconds(10));
}

void a_wait_ends_in_time_and_sleeps_also_while_calls_fail() {
  Rig rig;
  rig.make();
  rig.faults->enter_error = [] { return EIO; };
  std::vector<DiskResult> results;
  rig.io->wait(results, 0.5);
  CHECK(results.empty() && rig.faults->num_enters < 30);
}

void answers_of_the_system_are_told_apart() {
  Rig rig;
  rig.make();
  const auto answered = [&](bool is_write, EntryFault fault, int count) {
    rig.faults->entry_fault = [fault, left = count]() mutable {
      return left-- > 0 ? std::optional(fault) : std::nullopt;
    };
    return rig.run(is_write, {rig.out.all()});
  };
  for (const bool is_write : {true, false}) {
    CHECK(answered(is_write, {ENOSPC, 0}, 1) == ENOSPC);
    CHECK(answered(is_write, {EIO, 0}, 1) == EIO);
    for (const int passing : {EINTR, EAGAIN, EBUSY}) {
      CHECK(answered(is_write, {passing, 0}, DiskTransfer::max_idle_answers - 1) == 0);
      CHECK(answered(is_write, {passing, 0}, DiskTransfer::max_idle_answers) == EIO);
    }
    CHECK(answered(is_write, {0, page}, 1000) == 0);  // page by page
  }
  CHECK(answered(false, {0, 0}, 1) == ENODATA);
  CHECK(answered(true, {0, 0}, 1) == 0);
  CHECK(answered(true, {0, 0}, 1000) == EIO);
  rig.faults->entry_fault = [] { return std::nullopt; };
  rig.check_it_works();
}

}  // namespace

int main() {
  std::string why_not;
  if (std::string(make_disk_io("auto", {}, why_not)->name()) != "io_uring") {
    std::printf("test_uring: not run: %s\n", why_not.c_str());
    return 0;
  }
  a_refused_setup_is_thrown();
  flags_that_a_kernel_does_not_know_are_done_without();
  what_cannot_be_registered_is_done_without();
  registered_memory_is_used_where_a_request_lies_in_it();
  all_that_is_queued_is_started_by_one_call();
  an_idle_wait_is_one_call();
  a_kernel_that_takes_nothing_is_an_error_of_the_requests();
  what_the_kernel_has_is_waited_for_however_its_calls_fail();
  the_destructor_drains_however_calls_fail();
  wake_ends_a_wait_also_while_calls_fail();
  a_wait_ends_in_time_and_sleeps_also_while_calls_fail();
  answers_of_the_system_are_told_apart();
  std::puts("test_uring: ok");
}
