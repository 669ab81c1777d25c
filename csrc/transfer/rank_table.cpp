#include "transfer/rank_table.h"

#include <algorithm>
#include <bit>
#include <limits>

namespace flexkv {

namespace {

constexpr std::uint64_t max_device_blocks = std::uint64_t{1} << 40;
constexpr std::uint64_t max_slot_bytes = std::uint64_t{1} << 40;

std::string differs(const std::string& what, const std::string& now, const std::string& before) {
  return what + " is " + now + ", but was registered as " + before;
}

}  // namespace

std::string RankTable::objection(const protocol::RegisterBody& body, const std::string& layout_tag) const {
  const std::string name = "rank " + std::to_string(body.rank);
  if (body.num_ranks != size()) {
    return name + " expects " + std::to_string(body.num_ranks) + " ranks, this engine has " + std::to_string(size());
  }
  if (body.rank >= size()) return name + " is out of range [0, " + std::to_string(size()) + ")";
  if (body.num_blocks == 0 || body.num_blocks > max_device_blocks) {
    return name + ": num_blocks " + std::to_string(body.num_blocks) + " is out of range";
  }
  if (body.slot_bytes == 0 || body.slot_bytes > max_slot_bytes) {
    return name + ": slot_bytes " + std::to_string(body.slot_bytes) + " is out of range";
  }
  if (!std::has_single_bit(body.tokens_per_block)) {
    return name + ": tokens_per_block " + std::to_string(body.tokens_per_block) + " is not a power of two";
  }
  for (const Entry& other : entries_) {
    if (other.registered && other.info.tokens_per_block != body.tokens_per_block) {
      return differs(name + ": tokens_per_block", std::to_string(body.tokens_per_block),
                     std::to_string(other.info.tokens_per_block) + " by rank " + std::to_string(other.info.rank));
    }
  }
  const Entry& entry = entries_[body.rank];
  const std::string holder = " by process " + std::to_string(entry.info.pid);
  if (entry.info.connected) return name + " is registered" + holder + ", which lives";
  if (entry.lost) {
    return name + " was lost, but process " + std::to_string(entry.info.pid) + " still has ops of it in hand";
  }
  return objection_to_geometry(body, layout_tag);
}

// What the rank itself registered before must hold, and what its replicas did.
std::string RankTable::objection_to_geometry(const protocol::RegisterBody& body, const std::string& layout_tag) const {
  const std::string name = "rank " + std::to_string(body.rank);
  for (const Entry& other : entries_) {
    if (!other.registered || segment_of(other.info.rank) != segment_of(body.rank)) continue;
    const std::string holder = other.info.rank == body.rank ? " by process " + std::to_string(other.info.pid)
                                                            : " by rank " + std::to_string(other.info.rank) +
                                                                  ", which holds the same KV and shares its slots";
    if (other.info.slot_bytes != body.slot_bytes) {
      return differs(name + ": slot_bytes", std::to_string(body.slot_bytes),
                     std::to_string(other.info.slot_bytes) + holder);
    }
    if (other.info.layout_tag != layout_tag) {
      return differs(name + ": the layout tag", "'" + layout_tag + "'", "'" + other.info.layout_tag + "'" + holder);
    }
  }
  return "";
}

void RankTable::accept(const protocol::RegisterBody& body, const std::string& layout_tag, std::int64_t pid) {
  Entry& entry = entries_.at(body.rank);
  entry.registered = true;
  entry.lost = false;
  entry.info = {body.rank, pid, body.num_blocks, body.slot_bytes, body.tokens_per_block, layout_tag, true, 0};
}

void RankTable::lose(std::uint32_t rank) {
  Entry& entry = entries_.at(rank);
  entry.info.connected = false;
  entry.info.slots_mapped = 0;
  entry.lost = true;
}

void RankTable::free(std::uint32_t rank) { entries_.at(rank).lost = false; }

void RankTable::set_mapped(std::uint32_t rank, std::int64_t num_slots) {
  entries_.at(rank).info.slots_mapped = num_slots;
}

bool RankTable::all_registered() const {
  return std::ranges::all_of(entries_, [](const Entry& entry) { return entry.registered; });
}

std::int64_t RankTable::slots_mapped() const {
  std::int64_t least = std::numeric_limits<std::int64_t>::max();
  for (const Entry& entry : entries_) least = std::min(least, entry.info.connected ? entry.info.slots_mapped : 0);
  return least;
}

std::uint64_t RankTable::least_num_blocks() const {
  std::uint64_t least = std::numeric_limits<std::uint64_t>::max();
  for (const Entry& entry : entries_) least = std::min(least, entry.info.num_blocks);
  return least;
}

std::vector<RankInfo> RankTable::infos() const {
  std::vector<RankInfo> infos;
  for (const Entry& entry : entries_) {
    if (entry.registered) infos.push_back(entry.info);
  }
  return infos;
}

}  // namespace flexkv
