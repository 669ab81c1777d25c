// SsdDirectory through histories that end: orderly, by a power cut, by kill -9, by faults of the system. `--long` runs
// a campaign.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <system_error>
#include <vector>

#include "storage/ssd_directory.h"
#include "tests/check.h"
#include "tests/faulty_file.h"
#include "tests/ssd_expectation.h"
#include "tests/ssd_history.h"
#include "tests/ssd_kit.h"
#include "tests/temp_dir.h"
#include "tests/volatile_files.h"

using namespace flexkv;

namespace {

constexpr std::uint64_t max_slots = 200;  // more than two pages of records

FileSystem& disk() { return posix_file_system(); }

void a_directory_is_as_its_model_says(Choices& choices) {
  const TempDir temp;
  std::uint64_t num_slots = 1 + choices.below(max_slots);
  ShadowStore shadow;
  auto directory = std::make_unique<SsdDirectory>(disk(), small_store(temp.file("root"), num_slots));
  for (int step = 0; step < 300; ++step) {
    SsdOperation operation = next_operation(choices, num_slots, max_slots);
    shadow.aim(operation);
    shadow.apply(operation);
    if (operation.verb != SsdVerb::reopen) {
      CHECK(perform(*directory, operation) == 0);
      continue;
    }
    num_slots = operation.num_slots;
    const SsdDirectoryConfig config = small_store(temp.file("root"), num_slots);
    directory.reset();
    directory = std::make_unique<SsdDirectory>(disk(), config);
    CHECK(directory->num_slots() == num_slots && directory->origin() == SsdOrigin::warm);
    CHECK(bytes_below(config.root) == config.capacity_bytes);
    shadow.check_equal(directory->scan());
  }
  const std::vector<ScannedRecord> scanned = directory->scan();
  shadow.check_equal(scanned);
  for (const ScannedRecord& one : scanned) CHECK(block_is_whole(*directory, one));
}

// Runs operations until the files refuse. `num_slots` is that of the last directory that was opened, or tried.
void run_until_the_end(FileSystem& files, const std::string& root, Choices& choices, SsdExpectation& expected,
                       std::uint64_t& num_slots, const std::function<bool()>& has_ended) {
  std::unique_ptr<SsdDirectory> directory;
  SsdOperation operation;
  operation.verb = SsdVerb::reopen;
  operation.num_slots = num_slots;
  while (true) {
    expected.begin(operation);
    int error = 0;
    if (operation.verb == SsdVerb::reopen) {
      num_slots = operation.num_slots;
      directory.reset();  // which syncs
      if (has_ended()) return;
      SsdOperation synced;
      expected.end(synced);
      expected.begin(operation);
      try {
        directory = std::make_unique<SsdDirectory>(files, small_store(root, num_slots));
        (void)directory->scan();
      } catch (const std::system_error&) {
        CHECK(has_ended());
        return;
      }
    } else {
      error = perform(*directory, operation);
    }
    if (has_ended()) return;
    CHECK(error == 0);
    expected.end(operation);
    operation = next_operation(choices, num_slots, max_slots);
    expected.aim(operation);
  }
}

void what_was_synced_outlives_a_power_cut(Choices& choices) {
  const TempDir temp;
  SsdExpectation expected(EndsBy::power);
  std::uint64_t num_slots = 1 + choices.below(max_slots);
  for (int cycle = 0; cycle < 10; ++cycle) {
    VolatileFileSystem files;
    files.cut_after(1 + choices.below(choices.one_in(3) ? 20 : 400), choices);
    if (cycle == 0) expected.begin_making();
    run_until_the_end(files, temp.file("root"), choices, expected, num_slots, [&] { return files.is_cut(); });
    SsdDirectory directory(disk(), small_store(temp.file("root"), num_slots));
    expected.check_and_adopt(directory);
  }
}

// At every call of a first start: what it leaves is known for ours, and the next start makes it good.
void a_first_start_that_loses_power_is_made_good(Choices& choices) {
  bool was_cut = true;
  for (std::uint64_t calls = 1; was_cut; ++calls) {
    const TempDir temp;
    SsdDirectoryConfig config = small_store(temp.file("root"), 100);
    config.model.assign(1024, 'm');  // most sectors of the header have something in them
    // A start that fails removes what it has made; one that has no power cannot.
    CHECK(make_sub_directory(make_ssd_tree(config.root), config.fingerprint));
    VolatileFileSystem files;
    files.cut_after(calls, choices);
    try {
      const SsdDirectory directory(files, config);
    } catch (const std::system_error&) {
      CHECK(files.is_cut());
    }
    was_cut = files.is_cut();
    SsdDirectory directory(disk(), config);
    CHECK(directory.scan().empty() && directory.num_slots() == 100);
    CHECK(bytes_below(config.root) == config.capacity_bytes);
  }
}

// --- kill -9

// A child that writes a byte to the pipe whenever one more operation has ended.
class Child {
 public:
  template <typename Body>
  explicit Child(Body&& body) {
    int ends[2];
    CHECK(::pipe2(ends, O_CLOEXEC) == 0);
    pid_ = ::fork();
    CHECK(pid_ >= 0);
    if (pid_ == 0) {
      ::close(ends[0]);
      body([fd = ends[1]] { CHECK(::write(fd, "", 1) == 1); });
      std::abort();  // a body goes on until it is killed
    }
    ::close(ends[1]);
    pipe_ = ends[0];
  }
  // Kills it once `count` operations have ended. Returns how many had ended.
  std::uint64_t kill_after(std::uint64_t count) {
    std::uint64_t ended = 0;
    while (ended < count && take()) ++ended;
    CHECK(ended == count);
    CHECK(::kill(pid_, SIGKILL) == 0);
    int status = 0;
    CHECK(::waitpid(pid_, &status, 0) == pid_ && WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    while (take()) ++ended;
    ::close(pipe_);
    return ended;
  }

 private:
  bool take() const {
    char byte = 0;
    return ::read(pipe_, &byte, 1) == 1;
  }
  pid_t pid_ = -1;
  int pipe_ = -1;
};

// Both processes make the same history out of the seed; this one as far as the child came.
void what_was_written_outlives_the_process(Choices& choices) {
  const TempDir temp;
  const std::string root = temp.file("root");
  SsdExpectation expected(EndsBy::process);
  std::uint64_t num_slots = 1 + choices.below(max_slots);
  const auto history = [&](std::uint64_t seed, SsdExpectation& shadow, auto&& execute) {
    Choices drawn(seed);
    SsdOperation operation;
    operation.verb = SsdVerb::reopen;
    operation.num_slots = num_slots;
    while (true) {
      shadow.begin(operation);
      if (operation.verb == SsdVerb::reopen) num_slots = operation.num_slots;
      if (!execute(operation)) return;
      shadow.end(operation);
      operation = next_operation(drawn, num_slots, max_slots);
      shadow.aim(operation);
    }
  };
  for (int cycle = 0; cycle < 10; ++cycle) {
    const std::uint64_t seed = choices.below(UINT64_MAX);
    if (cycle == 0) expected.begin_making();
    Child child([&](auto&& ended) {
      std::unique_ptr<SsdDirectory> directory;
      history(seed, expected, [&](const SsdOperation& operation) {
        if (operation.verb == SsdVerb::reopen) {
          directory.reset();
          directory = std::make_unique<SsdDirectory>(disk(), small_store(root, operation.num_slots));
          (void)directory->scan();
        } else {
          CHECK(perform(*directory, operation) == 0);
        }
        ended();
        return true;
      });
    });
    std::uint64_t left = child.kill_after(choices.below(300));
    history(seed, expected, [&](const SsdOperation&) { return left-- > 0; });
    SsdDirectory directory(disk(), small_store(root, num_slots));
    expected.check_and_adopt(directory);
  }
}

// Two models in turn, each making room for itself by removing the other.
void a_killed_start_leaks_no_room(Choices& choices) {
  const TempDir temp;
  const SsdDirectoryConfig first = small_store(temp.file("root"), 80, "00000000000000a1");
  SsdDirectoryConfig second = small_store(temp.file("root"), 80, "00000000000000a2");
  second.extent_bytes = {test_slot_bytes};
  for (int cycle = 0; cycle < 10; ++cycle) {
    Child child([&](auto&& ended) {
      while (true) {
        for (const SsdDirectoryConfig& config : {first, second}) {
          SsdDirectory directory(disk(), config);
          CHECK(directory.write(3, SsdRecord()) == 0);
          ended();
        }
      }
    });
    (void)child.kill_after(choices.below(8));
    const SsdDirectory directory(disk(), choices.one_in(2) ? first : second);
    CHECK(directory.num_slots() == 80 && bytes_below(first.root) == first.capacity_bytes);
    std::uint64_t num_entries = 0;
    for (const auto& entry : std::filesystem::directory_iterator(first.root + "/flexkv-ssd-v1")) {
      num_entries += entry.exists() ? 1 : 0;
    }
    CHECK(num_entries == 2);  // the tree's lock and this sub-directory
  }
}

// --- faults

FaultRule some_fault(Choices& choices) {
  FaultRule rule;
  rule.kind = static_cast<FileCall>(choices.below(6));
  rule.name = choices.one_in(2) ? "records" : "data";
  rule.first = choices.below(choices.one_in(2) ? 8 : 200);
  rule.count = 1 + choices.below(3);
  const bool is_short = (rule.kind == FileCall::read || rule.kind == FileCall::write) && choices.one_in(2);
  if (is_short) {
    rule.fault.limit_bytes = choices.below(100);
  } else {
    constexpr std::array errors{EIO, ENOSPC, EROFS, EDQUOT};
    rule.fault.error = errors[choices.below(errors.size())];
  }
  return rule;
}

// Starts again until it works: a fault comes only so often.
std::unique_ptr<SsdDirectory> open_in_spite(FaultyFileSystem& files, const SsdDirectoryConfig& config) {
  for (int attempt = 0; attempt < 20; ++attempt) {
    const std::uint64_t faults_before = files.schedule.num_faults();
    try {
      auto directory = std::make_unique<SsdDirectory>(files, config);
      (void)directory->scan();
      return directory;
    } catch (const std::runtime_error&) {  // SsdConfigError or std::system_error
      CHECK(files.schedule.num_faults() > faults_before);
    }
  }
  CHECK(false);
  return nullptr;
}

void what_a_fault_leaves_is_whole_or_a_miss(Choices& choices) {
  const TempDir temp;
  const std::string root = temp.file("root");
  std::uint64_t num_slots = 1 + choices.below(max_slots);
  SsdExpectation expected(EndsBy::process);
  expected.begin_making();
  {
    FaultyFileSystem files;
    for (std::uint64_t i = 1 + choices.below(4); i > 0; --i) files.schedule.add(some_fault(choices));
    std::unique_ptr<SsdDirectory> directory = open_in_spite(files, small_store(root, num_slots));
    bool is_broken = false;
    for (int step = 0; step < 120; ++step) {
      SsdOperation operation = next_operation(choices, num_slots, max_slots);
      expected.aim(operation);
      expected.begin(operation);
      const std::uint64_t faults_before = files.schedule.num_faults();
      if (operation.verb == SsdVerb::reopen) {
        num_slots = operation.num_slots;
        directory.reset();
        directory = open_in_spite(files, small_store(root, num_slots));
        // A header that is half written counts as damaged: the next attempt empties it.
        if (files.schedule.num_faults() > faults_before) {
          SsdOperation emptied;
          emptied.verb = SsdVerb::renew;
          expected.begin(emptied);
        }
        is_broken = false;
      } else if (const int error = perform(*directory, operation); error != 0) {
        CHECK(files.schedule.num_faults() > faults_before || is_broken);
        is_broken = is_broken || operation.verb == SsdVerb::renew;
        if (operation.verb == SsdVerb::touch) {  // half a record may have been written over the whole one
          operation.verb = SsdVerb::invalidate;
          expected.begin(operation);
        }
        continue;
      }
      if (operation.verb == SsdVerb::renew) is_broken = false;
      expected.end(operation);
    }
  }
  SsdDirectory directory(disk(), small_store(root, num_slots));
  expected.check_and_adopt(directory);
}

}  // namespace

int main(int argc, char** argv) {
  const RunLength length = run_length(argc, argv);
  for_each_seed("model", length, length.cases(20, 200), a_directory_is_as_its_model_says);
  for_each_seed("power cut", length, length.cases(5, 200), what_was_synced_outlives_a_power_cut);
  for_each_seed("first start", length, length.cases(20, 200), a_first_start_that_loses_power_is_made_good);
  for_each_seed("kill", length, length.cases(3, 50), what_was_written_outlives_the_process);
  for_each_seed("killed start", length, length.cases(3, 50), a_killed_start_leaks_no_room);
  for_each_seed("faults", length, length.cases(50, 2000), what_a_fault_leaves_is_whole_or_a_miss);
}
