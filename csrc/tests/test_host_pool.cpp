// HostPool: geometry, bytes shared through the descriptor, seals, prefault order, limits, forks.
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <stdexcept>
#include <string>
#include <system_error>

#include "tests/check.h"
#include "tests/temp_dir.h"
#include "transfer/host_memory.h"
#include "transfer/host_pool.h"

using namespace flexkv;

namespace {

constexpr double patience_s = 60;

void slots_are_padded_extents_of_a_sealed_descriptor() {
  const HostPool pool({10, {100, 5000}, 2, true});
  CHECK(pool.num_shards() == 2 && pool.num_slots() == 10);
  CHECK(pool.slot_bytes(0) == 100 && pool.stride_bytes(0) == 4096 && pool.stride_bytes(1) == 8192);
  CHECK(pool.generation() != 0);
  CHECK(pool.page_kind() == "4k" || pool.page_kind() == "thp" || pool.page_kind() == "hugetlb");
  CHECK(pool.wait_prefaulted(10, patience_s) && pool.slots_prefaulted() == 10);
  CHECK(!pool.wait_prefaulted(11, 0));
  CHECK(pool.prefault_error() == 0);
  CHECK_THROWS(pool.base(2), std::invalid_argument);
  CHECK_THROWS(pool.fd(-1), std::invalid_argument);

  std::memcpy(pool.base(1) + 3 * pool.stride_bytes(1), "block", 6);
  auto* other = static_cast<char*>(::mmap(nullptr, 10 * 8192, PROT_READ, MAP_SHARED, pool.fd(1), 0));
  CHECK(other != MAP_FAILED && std::strcmp(other + 3 * 8192, "block") == 0);
  ::munmap(other, 10 * 8192);

  CHECK(::ftruncate(pool.fd(0), 0) == -1 && errno == EPERM);
  CHECK(::ftruncate(pool.fd(0), 1 << 30) == -1 && errno == EPERM);
  CHECK((::fcntl(pool.fd(0), F_GETFD) & FD_CLOEXEC) != 0);
}

void pools_differ_in_generation() {
  const HostPool a({1, {1}, 1, false});
  const HostPool b({1, {1}, 1, false});
  CHECK(a.generation() != b.generation());
}

void a_large_pool_is_prefaulted_in_order_and_may_be_dropped_at_any_moment() {
  {
    const HostPool pool({3000, {70000, 1}, 3, false});
    std::int64_t before = 0;
    for (std::int64_t wanted = 1; wanted <= 3000; wanted += 500) {
      CHECK(pool.wait_prefaulted(wanted, patience_s));
      const std::int64_t now = pool.slots_prefaulted();
      CHECK(now >= wanted && now >= before && now <= 3000);
      before = now;
    }
  }
  for (int i = 0; i < 5; ++i) const HostPool dropped({50000, {4096}, 2, false});
}

void prefaulting_leaves_bytes_as_they_are() {
  const HostPool pool({20000, {4096}, 1, false});
  const std::byte* last = pool.base(0) + 19999 * std::size_t{4096};
  std::memset(pool.base(0) + 19999 * std::size_t{4096}, 7, 4096);
  CHECK(pool.wait_prefaulted(20000, patience_s));
  CHECK(last[0] == std::byte{7} && last[4095] == std::byte{7});
}

void bad_configurations_are_refused() {
  CHECK_THROWS(HostPool({0, {1}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({-1, {1}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({1, {}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({1, {0}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({1, {std::numeric_limits<std::uint64_t>::max()}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({std::numeric_limits<std::int64_t>::max(), {4096}, 1, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({1, {1}, 0, true}), std::invalid_argument);
  CHECK_THROWS(HostPool({1, std::vector<std::uint64_t>(65, 1), 1, true}), std::invalid_argument);
}

void a_pool_that_does_not_fit_says_what_to_do() {
  try {
    const HostPool pool({std::int64_t{1} << 30, {1u << 20}, 1, true});  // 1 PiB
    CHECK(false);
  } catch (const std::system_error& error) {
    CHECK(error.code().value() == ENOMEM);
    const std::string text = error.what();
    CHECK(text.find("FLEXKV_CPU_CACHE_GB") != std::string::npos && text.find("GiB") != std::string::npos);
  }
}

void write_file(const std::filesystem::path& path, const std::string& text) {
  std::filesystem::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

void the_smallest_limit_of_the_control_groups_counts() {
  const TempDir dir;
  const std::filesystem::path root = dir.file("");
  CHECK(memory_headroom(root).available_bytes == std::numeric_limits<std::uint64_t>::max());
  write_file(root / "proc/meminfo", "MemTotal: 100 kB\nMemAvailable:     64 kB\n");
  CHECK(memory_headroom(root).available_bytes == 64 << 10);
  CHECK(memory_headroom(root).limited_by.find("MemAvailable") == 0);

  write_file(root / "proc/self/cgroup", "4:cpu,memory:/a/b\n0::/c/d\n");
  write_file(root / "sys/fs/cgroup/memory/a/memory.limit_in_bytes", "50000\n");
  write_file(root / "sys/fs/cgroup/memory/a/memory.usage_in_bytes", "20000\n");
  CHECK(memory_headroom(root).available_bytes == 30000);
  write_file(root / "sys/fs/cgroup/memory/a/memory.stat", "cache 3\ntotal_inactive_file 5000\n");
  CHECK(memory_headroom(root).available_bytes == 35000);

  write_file(root / "sys/fs/cgroup/c/d/memory.max", "max\n");
  write_file(root / "sys/fs/cgroup/c/d/memory.current", "1\n");
  CHECK(memory_headroom(root).available_bytes == 35000);
  write_file(root / "sys/fs/cgroup/c/memory.max", "30000\n");
  write_file(root / "sys/fs/cgroup/c/memory.current", "40000\n");
  CHECK(memory_headroom(root).available_bytes == 0);
  CHECK(memory_headroom(root).limited_by.find("memory.max") != std::string::npos);
}

void huge_page_settings_are_read() {
  const TempDir dir;
  const std::filesystem::path root = dir.file("");
  CHECK(free_hugetlb_bytes(root) == 0 && !shmem_huge_pages_enabled(root));
  write_file(root / "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "5\n");
  write_file(root / "sys/kernel/mm/hugepages/hugepages-2048kB/resv_hugepages", "2\n");
  CHECK(free_hugetlb_bytes(root) == 3u * (2 << 20));
  const std::filesystem::path shmem = root / "sys/kernel/mm/transparent_hugepage/shmem_enabled";
  write_file(shmem, "always within_size advise [never] deny force\n");
  CHECK(!shmem_huge_pages_enabled(root));
  write_file(shmem, "always within_size [advise] never deny force\n");
  CHECK(shmem_huge_pages_enabled(root));
}

void a_forked_child_drops_its_copy_without_harm() {
  auto pool = std::make_unique<HostPool>(HostPoolConfig{100000, {4096}, 2, false});
  std::memset(pool->base(0), 9, 4096);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    const bool waited = pool->wait_prefaulted(1, 1);
    pool.reset();
    ::_exit(waited ? 1 : 0);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child && WIFEXITED(status) && WEXITSTATUS(status) == 0);
  CHECK(pool->wait_prefaulted(100000, patience_s) && pool->base(0)[4095] == std::byte{9});
}

}  // namespace

int main() {
  slots_are_padded_extents_of_a_sealed_descriptor();
  pools_differ_in_generation();
  a_large_pool_is_prefaulted_in_order_and_may_be_dropped_at_any_moment();
  prefaulting_leaves_bytes_as_they_are();
  bad_configurations_are_refused();
  a_pool_that_does_not_fit_says_what_to_do();
  the_smallest_limit_of_the_control_groups_counts();
  huge_page_settings_are_read();
  a_forked_child_drops_its_copy_without_harm();
  std::puts("test_host_pool: ok");
  return 0;
}
