// The disk engines under their contract: both, on direct and buffered files, on a disk and in memory, and both on
// faults.
#include <cstdio>
#include <filesystem>
#include <random>

#include "storage/uring_io.h"
#include "tests/check.h"
#include "tests/disk_io_contract.h"
#include "tests/faulty_file.h"
#include "tests/faulty_uring.h"
#include "tests/temp_dir.h"

using namespace flexkv;

namespace {

std::unique_ptr<DiskIo> make(const std::string& name, const DiskIoConfig& config) {
  std::string why_not;
  return make_disk_io(name, config, why_not);
}

bool has_io_uring() {
  std::string why_not;
  const bool has = std::string(make_disk_io("auto", {}, why_not)->name()) == "io_uring";
  CHECK(has == why_not.empty());
  if (!has) std::printf("  io_uring is not tested: %s\n", why_not.c_str());
  return has;
}

class Files {
 public:
  explicit Files(std::string directory) : directory_(std::move(directory)) {}
  std::unique_ptr<File> open(FileSystem& files, const std::string& name, OpenMode mode) {
    int error = 0;
    auto file = files.open(directory_ + "/" + std::to_string(num_opened_++) + name, mode, error);
    CHECK_NO_ERROR(error);
    CHECK(file != nullptr);
    return file;
  }

  [[nodiscard]] const std::string& directory() const { return directory_; }

 private:
  std::string directory_;
  int num_opened_ = 0;
};

void check(const DiskIoCase& under_test) {
  std::printf("  %s\n", under_test.name.c_str());
  check_disk_io_contract(under_test);
}

void engines_on_real_files(Files& files, bool with_io_uring) {
  for (const OpenMode mode : {OpenMode::direct, OpenMode::buffered}) {
    for (const std::string engine : {"threads", "io_uring"}) {
      if (engine == "io_uring" && !with_io_uring) continue;
      const char* how = mode == OpenMode::direct ? ", direct, " : ", buffered, ";
      check({engine + how + files.directory(), [&](const DiskIoConfig& config) { return make(engine, config); },
             [&](const std::string& name) { return files.open(posix_file_system(), name, mode); }});
    }
  }
}

void threads_on_faults(Files& files) {
  for (const OpenMode mode : {OpenMode::direct, OpenMode::buffered}) {
    FaultyFileSystem faulty;
    for (const FileCall kind : {FileCall::read, FileCall::write}) {
      faulty.schedule.add({kind, "", {EINTR, Fault::all}, 1, FaultSchedule::forever, 5});
      faulty.schedule.add({kind, "", {EAGAIN, Fault::all}, 2, FaultSchedule::forever, 7});
      faulty.schedule.add({kind, "", {0, 5000}, 0, FaultSchedule::forever, 3});
      faulty.schedule.add({kind, "", {0, 12288}, 0, FaultSchedule::forever, 4});
    }
    check({"threads on faults", [](const DiskIoConfig& config) { return make("threads", config); },
           [&](const std::string& name) { return files.open(faulty, name, mode); }});
    CHECK(faulty.schedule.num_faults() > 1000);
  }
}

// Calls that fail in passing, entries taken one by one, short and interrupted answers.
std::shared_ptr<UringFaults> passing_faults() {
  auto faults = std::make_shared<UringFaults>();
  auto random = std::make_shared<std::mt19937_64>(7);
  faults->enter_error = [random] {
    constexpr int errors[] = {EINTR, EAGAIN, EBUSY, EIO, EBADR};
    const std::uint64_t roll = (*random)() % 20;
    return roll < 5 ? errors[roll] : 0;
  };
  faults->max_consumed = [random] { return 1 + static_cast<unsigned>((*random)() % 8); };
  faults->entry_fault = [random]() -> std::optional<EntryFault> {
    switch ((*random)() % 8) {
      case 0:
        return EntryFault{EINTR, 0};
      case 1:
        return EntryFault{EAGAIN, 0};
      case 2:
        return EntryFault{0, 4096};
      case 3:
        return EntryFault{0, 12288};
      default:
        return std::nullopt;
    }
  };
  return faults;
}

void io_uring_on_faults(Files& files) {
  for (const bool is_old_kernel : {false, true}) {
    const auto faults = passing_faults();
    if (is_old_kernel) {
      faults->unknown_setup = ~0u;
      faults->hidden_features = uring::feature_ext_arg;
      faults->register_error = [](unsigned) { return EINVAL; };
    }
    check({is_old_kernel ? "io_uring of an old kernel, on faults" : "io_uring on faults",
           [&](const DiskIoConfig& config) {
             return std::make_unique<UringIo>(config, std::make_unique<FaultyUring>(faults));
           },
           [&](const std::string& name) { return files.open(posix_file_system(), name, OpenMode::direct); }});
    CHECK(faults->num_entry_faults > 500);
    CHECK((faults->num_fixed_entries > 0) != is_old_kernel && (faults->num_fixed_files > 0) != is_old_kernel);
    CHECK((faults->num_polls > 200) || !is_old_kernel);
  }
}

void bad_configurations_are_refused() {
  std::string why_not;
  CHECK_THROWS(make_disk_io("uring", {}, why_not), std::invalid_argument);
  CHECK_THROWS(make_disk_io("auto", {0, 4, {}}, why_not), std::invalid_argument);
  CHECK_THROWS(make_disk_io("auto", {1025, 4, {}}, why_not), std::invalid_argument);
  CHECK_THROWS(make_disk_io("threads", {32, 0, {}}, why_not), std::invalid_argument);
  CHECK_THROWS(make_disk_io("threads", {32, 257, {}}, why_not), std::invalid_argument);
  CHECK(make_disk_io("threads", {1024, 1, {}}, why_not)->depth() == 1024);
}

void files_without_a_descriptor_are_for_threads(const std::string& directory) {
  FaultyFileSystem without;
  int error = 0;
  const auto file = without.open(directory + "/without", OpenMode::buffered, error);
  std::string why_not;
  const DiskIoConfig config = {4, 1, {file.get()}};
  CHECK_THROWS(make_disk_io("io_uring", config, why_not), std::system_error);
  CHECK(std::string(make_disk_io("auto", config, why_not)->name()) == "threads");
  CHECK(!why_not.empty());
}

}  // namespace

int main() {
  const TempDir dir;
  const bool with_io_uring = has_io_uring();
  bad_configurations_are_refused();
  files_without_a_descriptor_are_for_threads(dir.file(""));
  Files on_disk(dir.file(""));
  engines_on_real_files(on_disk, with_io_uring);
  if (std::filesystem::exists("/dev/shm")) {
    std::string pattern = "/dev/shm/flexkv-test-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    Files in_memory(pattern);
    engines_on_real_files(in_memory, with_io_uring);
    std::filesystem::remove_all(pattern);
  }
  threads_on_faults(on_disk);
  if (with_io_uring) io_uring_on_faults(on_disk);
  std::puts("test_disk_io: ok");
}
