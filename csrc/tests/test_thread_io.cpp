// What is of the thread engine alone: how many requests move at a time, answers of files, calls that hang. The contract
// of disk engines is in test_disk_io.cpp.
#include <cstdio>
#include <thread>

#include "storage/thread_io.h"
#include "tests/check.h"
#include "tests/disk_io_contract.h"
#include "tests/faulty_file.h"
#include "tests/temp_dir.h"

using namespace flexkv;
using namespace flexkv::disk_io_contract;

namespace {

struct Rig {
  explicit Rig(OpenMode mode = OpenMode::direct) {
    int error = 0;
    file = files.open(dir.file("data"), mode, error);
    CHECK(file != nullptr);
    CHECK_NO_ERROR(file->allocate(file_pages * page));
  }
  int run(bool is_write) { return run_one(*io, *file, is_write, 0, {memory.all()}); }
  void submit(std::uint64_t tag) { io->submit({tag, file.get(), false, tag * page, {{memory.at(tag * page), page}}}); }

  static constexpr std::size_t file_pages = 16;
  static constexpr unsigned num_threads = 3;
  const TempDir dir;
  FaultyFileSystem files;
  std::unique_ptr<File> file;
  Pages memory{file_pages * page};
  std::unique_ptr<ThreadIo> io = std::make_unique<ThreadIo>(file_pages, num_threads);
};

void requests_move_as_many_at_a_time_as_there_are_threads() {
  Rig rig;
  rig.files.schedule.hold(FileCall::read);
  for (std::uint64_t tag = 0; tag < Rig::file_pages; ++tag) rig.submit(tag);
  CHECK(rig.files.schedule.num_calls(FileCall::read) == 0);  // queued only
  std::vector<DiskResult> results;
  rig.io->wait(results, 0);
  rig.files.schedule.wait_held(Rig::num_threads);
  CHECK(results.empty() && rig.io->in_flight() == Rig::file_pages);
  CHECK(rig.files.schedule.num_calls(FileCall::read) == Rig::num_threads);
  rig.files.schedule.release();
  while (rig.io->in_flight() > 0) rig.io->wait(results, patience_s);
  CHECK(results.size() == Rig::file_pages);
}

void wake_ends_a_wait_for_a_call_that_hangs() {
  Rig rig;
  rig.files.schedule.hold(FileCall::read);
  rig.submit(0);
  std::vector<DiskResult> results;
  std::thread waker([&] {
    rig.files.schedule.wait_held(1);
    rig.io->wake();
  });
  rig.io->wait(results, patience_s);
  waker.join();
  CHECK(results.empty() && rig.io->in_flight() == 1);
  rig.files.schedule.release();
  CHECK(one_result(*rig.io).error == 0);
}

void the_destructor_waits_for_a_call_that_hangs() {
  Rig rig;
  rig.files.schedule.hold(FileCall::read);
  rig.submit(0);
  rig.submit(1);
  std::thread opener([&] {
    rig.files.schedule.wait_held(2);
    rig.files.schedule.release();
  });
  rig.io.reset();
  CHECK(rig.files.schedule.num_held() == 0 && rig.files.schedule.num_calls(FileCall::read) == 2);
  opener.join();
}

void answers_of_the_file_are_told_apart() {
  Rig rig;
  const auto answered = [&](bool is_write, Fault fault, std::uint64_t count) {
    rig.files.schedule.clear();
    rig.files.schedule.add({is_write ? FileCall::write : FileCall::read, "data", fault, 0, count, 1});
    return rig.run(is_write);
  };
  for (const bool is_write : {true, false}) {
    CHECK(answered(is_write, {ENOSPC, Fault::all}, 1) == ENOSPC);
    CHECK(answered(is_write, {EIO, Fault::all}, 1) == EIO);
    for (const int passing : {EINTR, EAGAIN, EBUSY}) {
      CHECK(answered(is_write, {passing, Fault::all}, DiskTransfer::max_idle_answers - 1) == 0);
      CHECK(answered(is_write, {passing, Fault::all}, DiskTransfer::max_idle_answers) == EIO);
    }
    CHECK(answered(is_write, {0, 5000}, FaultSchedule::forever) == 0);  // page by page: in whole pages
  }
  CHECK(answered(false, {0, 0}, 1) == ENODATA);
  CHECK(answered(false, {0, 100}, FaultSchedule::forever) == (rig.file->is_direct() ? ENODATA : 0));
  CHECK(answered(true, {0, 0}, 1) == 0);
  CHECK(answered(true, {0, 0}, FaultSchedule::forever) == EIO);
}

void an_interruption_does_not_hide_the_end_of_the_file() {
  Rig rig;
  rig.files.schedule.add({FileCall::read, "", {EAGAIN, Fault::all}, DiskTransfer::max_idle_answers - 1});
  rig.files.schedule.add({FileCall::read, "", {0, 100}, 0, FaultSchedule::forever});
  if (rig.file->is_direct()) CHECK(rig.run(false) == ENODATA);
}

void buffered_files_go_on_from_any_byte() {
  Rig rig(OpenMode::buffered);
  std::mt19937_64 random(1);
  rig.memory.randomize(random);
  Pages out(rig.memory.bytes());
  std::memcpy(out.at(0), rig.memory.at(0), out.bytes());
  for (const FileCall kind : {FileCall::write, FileCall::read}) {
    rig.files.schedule.add({kind, "", {0, 999}, 0, FaultSchedule::forever, 1});
  }
  CHECK(rig.run(true) == 0);
  rig.memory.fill(poison);
  CHECK(rig.run(false) == 0);
  CHECK(rig.memory == out && rig.files.schedule.num_calls(FileCall::read) == rig.memory.bytes() / 999 + 1);
}

}  // namespace

int main() {
  requests_move_as_many_at_a_time_as_there_are_threads();
  wake_ends_a_wait_for_a_call_that_hangs();
  the_destructor_waits_for_a_call_that_hangs();
  answers_of_the_file_are_told_apart();
  an_interruption_does_not_hide_the_end_of_the_file();
  buffered_files_go_on_from_any_byte();
  std::puts("test_thread_io: ok");
}
