// RankTable: which ranks have registered, with what geometry, and whether a registration may be accepted.
// Pure. Thread safety: none; the TransferEngine's mutex guards it.
//
// A rank:  unknown -> connected -> lost (ops may still be in its hands) -> free -> connected ...
// Its geometry, once registered, is kept for the engine's life: slots hold bytes in that layout. Each `replicas` ranks,
// one after the other, hold the same bytes: they share a segment of the pool, and must agree on the geometry.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "transfer/protocol.h"
#include "transfer/transfer_types.h"

namespace flexkv {

class RankTable {
 public:
  explicit RankTable(std::uint32_t num_ranks, std::uint32_t replicas = 1)  // replicas divides num_ranks
      : replicas_(replicas), entries_(num_ranks) {}

  // Why this registration must be refused; empty when it may be accepted. Changes nothing.
  [[nodiscard]] std::string objection(const protocol::RegisterBody& body, const std::string& layout_tag) const;
  // REQUIRES: objection() is empty.
  void accept(const protocol::RegisterBody& body, const std::string& layout_tag, std::int64_t pid);
  void lose(std::uint32_t rank);  // connected -> lost
  void free(std::uint32_t rank);  // lost -> free
  void set_mapped(std::uint32_t rank, std::int64_t num_slots);

  [[nodiscard]] bool all_registered() const;             // each at some time
  [[nodiscard]] std::int64_t slots_mapped() const;       // by every rank; 0 while one is not connected
  [[nodiscard]] std::uint64_t least_num_blocks() const;  // device blocks every rank has; 0 before all have registered
  [[nodiscard]] std::vector<RankInfo> infos() const;     // of ranks that have ever registered
  [[nodiscard]] std::uint32_t size() const { return static_cast<std::uint32_t>(entries_.size()); }
  [[nodiscard]] std::uint32_t replicas() const { return replicas_; }
  [[nodiscard]] std::uint32_t num_segments() const { return size() / replicas_; }
  [[nodiscard]] std::uint32_t segment_of(std::uint32_t rank) const { return rank / replicas_; }
  [[nodiscard]] const RankInfo& info(std::uint32_t rank) const { return entries_.at(rank).info; }

 private:
  struct Entry {
    bool registered = false;  // ever
    bool lost = false;
    RankInfo info;
  };
  [[nodiscard]] std::string objection_to_geometry(const protocol::RegisterBody& body,
                                                  const std::string& layout_tag) const;

  std::uint32_t replicas_;
  std::vector<Entry> entries_;
};

}  // namespace flexkv
