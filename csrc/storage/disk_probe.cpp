#include "storage/disk_probe.h"

#include <chrono>
#include <stdexcept>
#include <vector>

#include "storage/disk_io.h"
#include "transfer/os_error.h"

namespace flexkv {
namespace {

constexpr double patience_s = 60;

void take(const std::vector<DiskResult>& results, const std::string& path) {
  if (results.empty()) throw_errno(ETIMEDOUT, "waiting for the disk of " + path);
  for (const DiskResult& result : results) {
    if (result.error != 0) throw_errno(result.error, "moving a block of " + path);
  }
}

}  // namespace

double time_disk(const DiskProbe& probe, const HostPool& pool, std::span<const std::int64_t> places) {
  if (pool.num_shards() != 1 || places.size() != static_cast<std::size_t>(pool.num_slots())) {
    throw std::invalid_argument("a probe takes a pool of one shard, and a place for each of its slots; got " +
                                std::to_string(pool.num_shards()) + " shards, " + std::to_string(places.size()) +
                                " places for " + std::to_string(pool.num_slots()) + " slots");
  }
  int error = 0;
  const auto file = posix_file_system().open(probe.path, OpenMode::direct, error);
  if (file == nullptr) throw_errno(error, "opening " + probe.path);
  DiskIoConfig config;
  config.depth = probe.depth;
  config.files = {file.get()};
  std::string why_not;
  const auto io = make_disk_io(probe.io_engine, config, why_not);
  const std::uint64_t stride = pool.stride_bytes(0);
  (void)io->add_buffer({pool.base(0), places.size() * stride});
  std::vector<DiskResult> results;
  results.reserve(probe.depth);
  const auto begin = std::chrono::steady_clock::now();
  for (std::size_t next = 0; next < places.size() || io->in_flight() > 0;) {
    for (; next < places.size() && io->in_flight() < io->depth(); ++next) {
      DiskRequest request;
      request.tag = next;
      request.file = file.get();
      request.is_write = probe.is_write;
      request.offset = static_cast<std::uint64_t>(places[next]) * stride;
      request.buffers = {{pool.base(0) + next * stride, stride}};
      io->submit(std::move(request));
    }
    results.clear();
    io->wait(results, patience_s);
    take(results, probe.path);
  }
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

}  // namespace flexkv
