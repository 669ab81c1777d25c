#include "tests/disk_io_contract.h"

#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <ctime>
#include <random>
#include <set>
#include <thread>
#include <utility>
#include <vector>

#include "storage/disk_io.h"
#include "tests/check.h"

namespace flexkv {
namespace disk_io_contract {

DiskResult one_result(DiskIo& io) {
  std::vector<DiskResult> results;
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_s);
  while (results.empty()) {
    io.wait(results, patience_s);
    CHECK(std::chrono::steady_clock::now() < deadline);
  }
  CHECK(results.size() == 1);
  return results.front();
}

int run_one(DiskIo& io, File& file, bool is_write, std::uint64_t offset, std::vector<iovec> buffers) {
  const std::uint64_t tag = 0x1234567890abcdef;
  io.submit({tag, &file, is_write, offset, std::move(buffers)});
  CHECK(io.in_flight() == 1);
  const DiskResult result = one_result(io);
  CHECK(result.tag == tag && io.in_flight() == 0);
  return result.error;
}

namespace {

// Keeps the engine as full as it may be; each request has exactly one result, without an error.
void run_all(DiskIo& io, std::vector<DiskRequest> requests) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(patience_s);
  std::set<std::uint64_t> expected;
  std::vector<DiskResult> results;
  std::size_t next = 0;
  while (next < requests.size() || !expected.empty()) {
    for (; next < requests.size() && io.in_flight() < io.depth(); ++next) {
      CHECK(expected.insert(requests[next].tag).second);
      io.submit(std::move(requests[next]));
    }
    CHECK(io.in_flight() == expected.size());
    results.clear();
    io.wait(results, patience_s);
    for (const DiskResult& result : results) {
      CHECK(result.error == 0);
      CHECK(expected.erase(result.tag) == 1);
    }
    CHECK(io.in_flight() == expected.size());
    CHECK(std::chrono::steady_clock::now() < deadline);
  }
}

// Extents that cover the file once, in random order, of one to some buffers that cover the memory once, in no order.
std::vector<DiskRequest> scattered(File& file, bool is_write, const Pages& memory, std::mt19937_64& random) {
  std::vector<DiskRequest> requests;
  std::size_t offset = 0;
  while (offset < memory.bytes()) {
    DiskRequest request{requests.size() * 7919, &file, is_write, offset, {}};
    const std::size_t num_buffers = 1 + random() % 5;
    for (std::size_t i = 0; i < num_buffers && offset < memory.bytes(); ++i) {
      const std::size_t bytes = std::min(page * (1 + random() % 24), memory.bytes() - offset);
      request.buffers.push_back({memory.at(offset), bytes});
      offset += bytes;
    }
    requests.push_back(std::move(request));
  }
  std::shuffle(requests.begin(), requests.end(), random);
  return requests;
}

void what_is_written_is_read_back(const DiskIoCase& under_test, unsigned depth, bool with_buffers) {
  constexpr std::size_t file_bytes = 6 << 20;
  std::mt19937_64 random(depth);
  const auto file = under_test.open("data");
  CHECK_NO_ERROR(file->allocate(file_bytes));
  Pages out(file_bytes);
  Pages in(file_bytes);
  const auto io = under_test.make({depth, 3, {file.get()}});
  CHECK(io->depth() == depth && io->in_flight() == 0);
  if (with_buffers) {
    (void)io->add_buffer(out.all());
    (void)io->add_buffer({in.at(0), file_bytes / 2});
  }
  for (int round = 0; round < 2; ++round) {
    out.randomize(random);
    in.fill(poison);
    run_all(*io, scattered(*file, true, out, random));
    run_all(*io, scattered(*file, false, in, random));
    CHECK(in == out);
  }
}

void several_files_are_told_apart(const DiskIoCase& under_test) {
  std::mt19937_64 random(1);
  const auto a = under_test.open("a");
  const auto b = under_test.open("b");
  const auto io = under_test.make({8, 2, {a.get(), b.get()}});
  Pages out(8 * page);
  Pages in(8 * page);
  out.randomize(random);
  CHECK_NO_ERROR(run_one(*io, *a, true, 0, {{out.at(0), 4 * page}}));
  CHECK_NO_ERROR(run_one(*io, *b, true, 0, {{out.at(4 * page), 4 * page}}));
  CHECK_NO_ERROR(run_one(*io, *b, false, 0, {{in.at(4 * page), 4 * page}}));
  CHECK_NO_ERROR(run_one(*io, *a, false, 0, {{in.at(0), 4 * page}}));
  CHECK(in == out);
}

void more_buffers_than_a_system_call_takes_are_gone_on_with(const DiskIoCase& under_test) {
  constexpr std::size_t num_buffers = 1100;  // IOV_MAX is 1024
  std::mt19937_64 random(2);
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  Pages out(num_buffers * page);
  Pages in(num_buffers * page);
  out.randomize(random);
  const auto backwards = [](const Pages& pages) {
    std::vector<iovec> buffers;
    for (std::size_t i = num_buffers; i > 0; --i) buffers.push_back({pages.at((i - 1) * page), page});
    return buffers;
  };
  CHECK_NO_ERROR(run_one(*io, *file, true, page, backwards(out)));
  CHECK_NO_ERROR(run_one(*io, *file, false, page, backwards(in)));
  CHECK(in == out);
}

void the_end_of_the_file_is_an_error(const DiskIoCase& under_test) {
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  CHECK_NO_ERROR(file->allocate(4 * page));
  Pages in(8 * page);
  CHECK_NO_ERROR(run_one(*io, *file, false, 0, {{in.at(0), 4 * page}}));
  CHECK(run_one(*io, *file, false, 0, {{in.at(0), 5 * page}}) == ENODATA);
  CHECK(run_one(*io, *file, false, 2 * page, {{in.at(0), page}, {in.at(page), 2 * page}}) == ENODATA);
  CHECK(run_one(*io, *file, false, 4 * page, {{in.at(0), page}}) == ENODATA);
  CHECK(run_one(*io, *file, false, 400 * page, {{in.at(0), page}}) == ENODATA);
  CHECK_NO_ERROR(file->allocate(4 * page + 100));
  CHECK(run_one(*io, *file, false, 3 * page, {{in.at(0), 2 * page}}) == ENODATA);
}

void errors_belong_to_their_request(const DiskIoCase& under_test) {
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  Pages memory(page);
  CHECK(run_one(*io, *file, true, ~std::uint64_t{0}, {memory.all()}) == EINVAL);
  CHECK(run_one(*io, *file, false, std::uint64_t{1} << 63, {memory.all()}) == EINVAL);
  CHECK(run_one(*io, *file, false, 0, {memory.all()}) == ENODATA);
  CHECK_NO_ERROR(run_one(*io, *file, true, 0, {memory.all()}));
  CHECK_NO_ERROR(run_one(*io, *file, false, 0, {memory.all()}));
}

void wake_ends_a_wait_and_is_not_lost(const DiskIoCase& under_test) {
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  std::vector<DiskResult> results;
  const auto start = std::chrono::steady_clock::now();
  io->wake();
  io->wait(results, patience_s);  // the next one
  for (int i = 0; i < 200; ++i) {
    std::thread waker([&io] { io->wake(); });  // before it or in its midst
    io->wait(results, patience_s);
    waker.join();
  }
  io->wake();
  io->wake();
  io->wait(results, patience_s);
  CHECK(results.empty());
  CHECK(std::chrono::steady_clock::now() - start < std::chrono::duration<double>(patience_s));
}

double cpu_seconds_of_process() {
  timespec now = {};
  CHECK(::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now) == 0);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

void an_idle_wait_sleeps_and_ends_in_time(const DiskIoCase& under_test) {
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  std::vector<DiskResult> results;
  io->wait(results, 0);
  io->wait(results, -1);
  constexpr double idle_s = 0.3;
  const double cpu_before = cpu_seconds_of_process();
  const auto start = std::chrono::steady_clock::now();
  io->wait(results, idle_s);
  const std::chrono::duration<double> slept = std::chrono::steady_clock::now() - start;
  CHECK(results.empty());
  CHECK(slept.count() > 0.9 * idle_s && slept.count() < patience_s);
  CHECK(cpu_seconds_of_process() - cpu_before < 0.2 * idle_s);
}

// By the times that the thread gave the processor away of itself. The kernel lets a sleep of no time last, too.
void a_wait_of_no_time_does_not_sleep(const DiskIoCase& under_test) {
  constexpr long num_waits = 1000;
  const auto num_sleeps = [] {
    rusage usage{};
    CHECK(::getrusage(RUSAGE_THREAD, &usage) == 0);
    return usage.ru_nvcsw;
  };
  const auto file = under_test.open("data");
  const auto io = under_test.make({4, 2, {file.get()}});
  std::vector<DiskResult> results;
  io->wait(results, 0);  // it may have to start something
  const long before = num_sleeps();
  for (long i = 0; i < num_waits; ++i) io->wait(results, 0);
  CHECK(results.empty() && num_sleeps() - before < num_waits / 10);
}

void the_destructor_drains(const DiskIoCase& under_test) {
  constexpr std::size_t num_requests = 16;
  constexpr std::size_t bytes = 32 * page;
  std::mt19937_64 random(3);
  const auto file = under_test.open("data");
  CHECK_NO_ERROR(file->allocate(num_requests * bytes));
  Pages out(num_requests * bytes);
  Pages in(num_requests * bytes);
  out.randomize(random);
  for (const bool is_write : {true, false}) {
    const auto io = under_test.make({num_requests, 2, {file.get()}});
    for (std::size_t i = 0; i < num_requests; ++i) {
      io->submit({i, file.get(), is_write, i * bytes, {{(is_write ? out : in).at(i * bytes), bytes}}});
      std::vector<DiskResult> results;
      if (i % 4 == 3) io->wait(results, 0);
    }
  }
  CHECK(in == out);
}

void one_thread_makes_it_and_another_uses_it(const DiskIoCase& under_test) {
  const auto file = under_test.open("data");
  auto io = under_test.make({4, 2, {file.get()}});
  Pages out(8 * page);
  Pages in(8 * page);
  (void)io->add_buffer(out.all());
  std::thread user([&] {
    std::mt19937_64 random(4);
    out.randomize(random);
    CHECK_NO_ERROR(run_one(*io, *file, true, 0, {out.all()}));
    (void)io->add_buffer(in.all());
    CHECK_NO_ERROR(run_one(*io, *file, false, 0, {in.all()}));
  });
  user.join();
  io.reset();  // nothing is in flight: any thread may
  CHECK(in == out);
}

}  // namespace

}  // namespace disk_io_contract

void check_disk_io_contract(const DiskIoCase& under_test) {
  using namespace disk_io_contract;
  for (const unsigned depth : {1u, 7u, 32u}) {
    what_is_written_is_read_back(under_test, depth, false);
    what_is_written_is_read_back(under_test, depth, true);
  }
  several_files_are_told_apart(under_test);
  more_buffers_than_a_system_call_takes_are_gone_on_with(under_test);
  the_end_of_the_file_is_an_error(under_test);
  errors_belong_to_their_request(under_test);
  wake_ends_a_wait_and_is_not_lost(under_test);
  an_idle_wait_sleeps_and_ends_in_time(under_test);
  a_wait_of_no_time_does_not_sleep(under_test);
  the_destructor_drains(under_test);
  one_thread_makes_it_and_another_uses_it(under_test);
}

}  // namespace flexkv
