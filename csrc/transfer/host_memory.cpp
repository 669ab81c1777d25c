#include "transfer/host_memory.h"

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <vector>

namespace flexkv {

namespace {

namespace fs = std::filesystem;

constexpr std::uint64_t hugetlb_page_bytes = 2u << 20;
constexpr const char* shmem_enabled_file = "sys/kernel/mm/transparent_hugepage/shmem_enabled";

std::string read_text(const fs::path& path) {
  const std::ifstream file(path);
  std::ostringstream text;
  if (file) text << file.rdbuf();
  return text.str();
}

std::optional<std::uint64_t> read_number(const fs::path& path) {
  std::ifstream file(path);
  std::uint64_t value = 0;
  if (file >> value) return value;  // "max" is no number: no limit
  return std::nullopt;
}

// The value after `key` in a file of "key value" lines; units are the caller's.
std::optional<std::uint64_t> read_field(const fs::path& path, const std::string& key) {
  std::istringstream lines(read_text(path));
  std::string line;
  while (std::getline(lines, line)) {
    std::istringstream fields(line);
    std::string name;
    std::uint64_t value = 0;
    if (fields >> name && name == key && fields >> value) return value;
  }
  return std::nullopt;
}

struct GroupFiles {
  const char* limit;
  const char* usage;
  const char* reclaimable;  // a key of memory.stat
};
constexpr GroupFiles v1_files = {"memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"};
constexpr GroupFiles v2_files = {"memory.max", "memory.current", "inactive_file"};

void take_minimum(MemoryHeadroom& least, std::uint64_t available_bytes, const std::string& limited_by) {
  if (available_bytes < least.available_bytes) least = {available_bytes, limited_by};
}

void visit_group(const fs::path& directory, const GroupFiles& files, MemoryHeadroom& least) {
  const std::optional<std::uint64_t> limit = read_number(directory / files.limit);
  const std::optional<std::uint64_t> usage = read_number(directory / files.usage);
  if (!limit || !usage) return;
  const std::uint64_t reclaimable = read_field(directory / "memory.stat", files.reclaimable).value_or(0);
  const std::uint64_t used = *usage - std::min(*usage, reclaimable);
  const std::uint64_t left = *limit - std::min(*limit, used);
  take_minimum(least, left,
               (directory / files.limit).string() + " is " + format_gib(*limit) + ", of which " + format_gib(used) +
                   " are used");
}

// From the process's own group up to the mount point. In a container the path may not exist below the mount: the climb
// then starts with its first ancestor that does, at last the mount point itself.
void visit_groups(const fs::path& mount, const std::string& group, const GroupFiles& files, MemoryHeadroom& least) {
  for (fs::path relative = fs::path(group).relative_path();; relative = relative.parent_path()) {
    visit_group(relative.empty() ? mount : mount / relative, files, least);
    if (relative.empty()) return;
  }
}

void visit_control_groups(const fs::path& root, MemoryHeadroom& least) {
  std::istringstream lines(read_text(root / "proc/self/cgroup"));
  std::string line;
  while (std::getline(lines, line)) {  // hierarchy-id:controllers:path
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = "," + line.substr(first + 1, second - first - 1) + ",";
    const std::string group = line.substr(second + 1);
    if (controllers == ",,") {
      visit_groups(root / "sys/fs/cgroup", group, v2_files, least);
      visit_groups(root / "sys/fs/cgroup/unified", group, v2_files, least);
    } else if (controllers.find(",memory,") != std::string::npos) {
      visit_groups(root / "sys/fs/cgroup/memory", group, v1_files, least);
    }
  }
}

}  // namespace

std::string format_gib(std::uint64_t bytes) {
  std::array<char, 32> text = {};
  (void)std::snprintf(text.data(), text.size(), "%.2f GiB", static_cast<double>(bytes) / (1u << 30));
  return text.data();
}

MemoryHeadroom memory_headroom(const std::string& root) {
  MemoryHeadroom least = {std::numeric_limits<std::uint64_t>::max(), "nothing"};
  const std::optional<std::uint64_t> available_kib = read_field(fs::path(root) / "proc/meminfo", "MemAvailable:");
  if (available_kib) {
    take_minimum(least, *available_kib << 10, "MemAvailable of /proc/meminfo is " + format_gib(*available_kib << 10));
  }
  visit_control_groups(root, least);
  return least;
}

std::uint64_t free_hugetlb_bytes(const std::string& root) {
  const fs::path directory = fs::path(root) / "sys/kernel/mm/hugepages/hugepages-2048kB";
  const std::uint64_t free_pages = read_number(directory / "free_hugepages").value_or(0);
  const std::uint64_t reserved_pages = read_number(directory / "resv_hugepages").value_or(0);
  return (free_pages - std::min(free_pages, reserved_pages)) * hugetlb_page_bytes;
}

bool shmem_huge_pages_enabled(const std::string& root) {
  const std::string text = read_text(fs::path(root) / shmem_enabled_file);
  constexpr std::array<const char*, 4> choices = {"[always]", "[within_size]", "[advise]", "[force]"};
  return std::ranges::any_of(choices, [&](const char* choice) { return text.find(choice) != std::string::npos; });
}

}  // namespace flexkv
