// posix_file_system: what it opens and refuses, direct files, allocation.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <random>

#include "tests/check.h"
#include "tests/disk_io_contract.h"
#include "tests/faulty_file.h"
#include "tests/temp_dir.h"

using namespace flexkv;
using flexkv::disk_io_contract::page;
using flexkv::disk_io_contract::Pages;

namespace {

std::unique_ptr<File> open(const std::string& path, OpenMode mode = OpenMode::buffered) {
  int error = -1;
  auto file = posix_file_system().open(path, mode, error);
  CHECK(file != nullptr && error == 0);
  return file;
}

int refusal(const std::string& path) {
  for (const OpenMode mode : {OpenMode::buffered, OpenMode::direct}) {
    int error = 0;
    CHECK(posix_file_system().open(path, mode, error) == nullptr && error != 0);
    if (mode == OpenMode::direct) return error;
  }
  return 0;
}

std::size_t num_descriptors() {
  const std::filesystem::directory_iterator all("/proc/self/fd");
  return static_cast<std::size_t>(std::distance(begin(all), end(all)));
}

void files_are_private_and_their_descriptors_too() {
  const TempDir dir;
  const auto file = open(dir.file("data"));
  struct stat status = {};
  CHECK(::fstat(file->fd(), &status) == 0 && (status.st_mode & 07777) == 0600);
  CHECK((::fcntl(file->fd(), F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((::fcntl(file->fd(), F_GETFL) & O_NONBLOCK) == 0);
  CHECK(file->size() == 0);
}

void only_regular_files_are_opened() {
  const TempDir dir;
  const std::size_t before = num_descriptors();
  std::ofstream(dir.file("target")) << "bytes";
  CHECK(::symlink(dir.file("target").c_str(), dir.file("link").c_str()) == 0);
  CHECK(::mkfifo(dir.file("fifo").c_str(), 0600) == 0);
  CHECK(refusal(dir.file("link")) == ELOOP);
  CHECK(refusal(dir.file("")) == EISDIR);
  CHECK(refusal(dir.file("fifo")) == EOPNOTSUPP);
  CHECK(refusal(dir.file("missing/data")) == ENOENT);
  CHECK(refusal(dir.file("target/data")) == ENOTDIR);
  CHECK(num_descriptors() == before);
}

void what_is_there_is_opened_as_it_is() {
  const TempDir dir;
  std::mt19937_64 random(1);
  Pages out(4 * page);
  Pages in(4 * page);
  out.randomize(random);
  for (const OpenMode mode : {OpenMode::direct, OpenMode::buffered}) {
    const iovec from = out.all();
    CHECK(open(dir.file("data"), mode)->write({&from, 1}, page) == 4 * page);
    const auto file = open(dir.file("data"), mode);
    CHECK(file->is_direct() == ((::fcntl(file->fd(), F_GETFL) & O_DIRECT) != 0));
    CHECK(file->size() == 5 * page && file->sync() == 0);
    in.fill(disk_io_contract::poison);
    const iovec to[2] = {{in.at(0), page}, {in.at(page), 3 * page}};
    CHECK(file->read(to, page) == 4 * page && in == out);
    CHECK(file->read(to, 4 * page) == page && file->read(to, 5 * page) == 0);
    CHECK(file->read(to, ~std::uint64_t{0}) == -EINVAL && file->write(to, ~std::uint64_t{0}) == -EFBIG);
  }
}

void a_file_system_without_direct_io_gives_a_buffered_file() {
  const auto file = open("/proc/self/comm", OpenMode::direct);  // EINVAL for O_DIRECT
  CHECK(!file->is_direct());
  char name[32];
  const iovec to = {name, sizeof(name)};
  CHECK(file->read({&to, 1}, 0) > 0);
}

void allocation_makes_it_exactly_that_long() {
  const TempDir dir;
  const auto file = open(dir.file("data"));
  for (const std::uint64_t bytes : {std::uint64_t{5 << 20}, std::uint64_t{3 << 20}, std::uint64_t{12345}}) {
    CHECK_NO_ERROR(file->allocate(bytes));
    struct stat status = {};
    CHECK(::fstat(file->fd(), &status) == 0);
    CHECK(static_cast<std::uint64_t>(status.st_size) == bytes);
    CHECK(static_cast<std::uint64_t>(status.st_blocks) * 512 >= bytes);
  }
  CHECK_NO_ERROR(file->allocate(0));
  CHECK(file->size() == 0);
}

void allocation_that_does_not_fit_leaves_it_as_it_was() {
  const TempDir dir;
  const auto file = open(dir.file("data"));
  CHECK_NO_ERROR(file->allocate(8192));
  CHECK(file->allocate(~std::uint64_t{0}) == EFBIG);
  const int error = file->allocate(std::uint64_t{1} << 62);
  CHECK(error == EFBIG || error == ENOSPC);
  CHECK(file->size() == 8192);
}

void a_faulty_file_system_fails_by_its_schedule() {
  const TempDir dir;
  FaultyFileSystem files;
  files.schedule.add({FileCall::open, "records", {EACCES, Fault::all}, 1});
  files.schedule.add({FileCall::read, "data", {0, 100}, 0, 2, 2});
  files.schedule.add({FileCall::sync, "", {EIO, Fault::all}, 0, FaultSchedule::forever});
  int error = 0;
  const auto data = files.open(dir.file("data"), OpenMode::buffered, error);
  CHECK(data != nullptr && files.open(dir.file("records"), OpenMode::buffered, error) != nullptr);
  CHECK(files.open(dir.file("records"), OpenMode::buffered, error) == nullptr && error == EACCES);
  CHECK(data->allocate(page) == 0 && data->size() == page && data->fd() == -1);
  Pages in(page);
  const iovec to = in.all();
  for (const std::int64_t expected : {100, 4096, 100, 4096, 4096}) CHECK(data->read({&to, 1}, 0) == expected);
  CHECK(data->sync() == EIO && data->sync() == EIO);
  CHECK(files.schedule.num_calls(FileCall::read, "data") == 5 && files.schedule.num_calls(FileCall::open) == 3);
  CHECK(files.schedule.num_faults() == 5);
  files.schedule.clear();
  CHECK(data->sync() == 0);
}

}  // namespace

int main() {
  files_are_private_and_their_descriptors_too();
  only_regular_files_are_opened();
  what_is_there_is_opened_as_it_is();
  a_file_system_without_direct_io_gives_a_buffered_file();
  allocation_makes_it_exactly_that_long();
  allocation_that_does_not_fit_leaves_it_as_it_was();
  a_faulty_file_system_fails_by_its_schedule();
  std::puts("test_file_system: ok");
}
