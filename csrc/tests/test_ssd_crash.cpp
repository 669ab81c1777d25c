// SsdDirectory through histories that end: orderly, by a power cut, by kill -9, by faults of the system. `--long` runs
// a campaign.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <memory>
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
    shadow.check_equal(directory->scan(0));
  }
  const std::vector<ScannedRecord> scanned = directory->scan(0);
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
      } catch (const std::system_error&) {
        CHECK(has_ended());
        return;
      }
      (void)directory->scan(0);
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

}  // namespace

int main(int argc, char** argv) {
  const RunLength length = run_length(argc, argv);
  for_each_seed("model", length, length.cases(20, 500), a_directory_is_as_its_model_says);
  for_each_seed("power cut", length, length.cases(5, 200), what_was_synced_outlives_a_power_cut);
}
