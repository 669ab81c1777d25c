// StagedCopies: blocks move through stages: a kernel gathers a batch of blocks into a stage, and the copy engine takes
// it to the host in as few pieces as the slots are in runs; or the other way round.
//
//   store:  gather -> filled -> copies to the host -> done
//   load:   copies from the host -> filled -> scatter -> done
//
// No byte moves over the link while the first stage of a store is gathered, and the last one of a load scattered: for
// so long some blocks, the edge, go straight: the copy engine alone moves them, where it can.
//
// Beside the engine's work that is long, and of short ops most of what they lose: kernels take longer there, and each
// multiprocessor starts three groups of ours at most while one of the engine's large ones runs (docs/adr/0009). Such
// ops have longer edges, launch few groups in batches that grow towards the middle, and are waited for by closer looks.
// Where both directions copy, there are groups for one launch of each: what its whole batch takes is the edge's.
//
// A kernel waits where the engine's leave it no room, as many do not leave it to slim ones (csrc/cuda/slim.cu). Kernels
// of several stages wait in streams of their own: all of them get in at the same moment, so that the stages, not one
// stage, bound what is moved in between. Of parts of slots a stage holds the parts only, one behind the other; and
// slots that are longer than a stage pass as parts of them.
//
// A stage is used again when the host has seen its bytes leave it. To have the device wait for that instead was
// measured (H100, before there were slim kernels): a queue that waits for another one makes each batch 20 us longer, a
// store's kernel that waits so gets its turn late beside a large product (0.85 of the link for 0.90), and loads slow
// that product more. For the same reason a load beside the engine's work has its kernels launched by the host, when it
// has seen that a stage is filled; otherwise, and for the last stage, the device waits for that, as the host would come
// some microseconds later.
//
// Turns (csrc/cuda/copy_turns.h) are those of the lane's stream, and in between one stage's copies in its own stream.
//
// MixedCopies: a third of all blocks goes straight, so that less passes through stages beside the engine's work, and
// costs that less.
#pragma once
#include <chrono>
#include <cstddef>
#include <optional>

#include "cuda/copy_batch.h"
#include "cuda/copy_mechanism.h"
#include "cuda/copy_turns.h"
#include "cuda/fixed_queue.h"
#include "cuda/gpu_shared.h"
#include "cuda/gpu_wait.h"
#include "cuda/lane_streams.h"
#include "cuda/part_events.h"

namespace flexkv::cuda {

// What goes straight of an op, where it can: blocks at the edge; a third of the others, too.
enum class Straight : std::uint8_t { edge, third };

// Ops of so many bytes and fewer are short: beside the engine's work what they lose at their ends is felt.
inline constexpr std::uint64_t most_bytes_of_short_op = std::uint64_t{128} << 20;

// How many blocks batches have; and at most how many times as many as the batch before it one of a store has, and one
// of a load as all that is behind it: the kernel of one runs while others are copied.
struct BatchLengths {
  static constexpr std::size_t any_growth = std::size_t{1} << 16U;
  std::size_t least = 1;
  std::size_t most = 1;
  std::size_t growth = any_growth;
};

class StagedCopies final : public CopyMechanism {
 public:
  StagedCopies(GpuShared& shared, LaneStreams& streams)
      : shared_(shared), streams_(streams), batch_(streams), turns_(shared.steps, turn_bytes), edge_(shared.device) {}

  [[nodiscard]] bool takes(const CopyOp& /*op*/) const override { return true; }
  [[nodiscard]] bool fits_a_stage(const CopyOp& op) const;  // else what is copied of a slot passes in pieces
  void copy(const CopyOp& op) override { copy(op, Straight::edge); }
  void copy(const CopyOp& op, Straight straight);  // REQUIRES: a third: they can
  void settle() noexcept override;

  // The same in steps: begin, any number of issues, all behind the same step of the engine's, finish. What is issued
  // runs on when `issue` returns. Throws Error.
  void begin(std::uint64_t after_step);
  void issue(const CopyOp& op, bool is_beside_work);
  // Records in the events, one for each stage, what was issued so far and may not be there yet.
  void record(const PartEvents& events) const;
  void finish();  // returns once all that was issued is there

 private:
  // A batch of an op, and how far apart its blocks are in a stage.
  struct Batch {
    std::span<const std::int64_t> slots;
    std::span<const std::int64_t> blocks;
    std::uint64_t pitch_bytes = 0;
    [[nodiscard]] std::uint64_t bytes() const { return blocks.size() * pitch_bytes; }
  };
  // A stage that is held, and how many of the bytes issued have passed once it is done.
  struct InFlight {
    GpuStage* stage = nullptr;
    std::uint64_t passed_bytes = 0;
    const CopyOp* to_scatter = nullptr;  // the load whose kernel the host is to launch, once the stage is filled
    Batch batch;                         // of it
  };

  [[nodiscard]] static Batch batch_of(const CopyOp& op, std::size_t first, std::size_t count,
                                      std::uint64_t pitch_bytes);
  struct Way {
    bool is_beside_work = false;  // of the engine's
    bool is_host_to_launch = false;
  };
  void pass_stages(const CopyOp& op, Straight straight, bool is_busy);
  [[nodiscard]] std::chrono::nanoseconds duration_of_edge() const;
  [[nodiscard]] BatchLengths lengths_of(std::uint64_t pitch_bytes) const;
  [[nodiscard]] Looks looks_meanwhile() const { return is_short_beside_work_ ? Looks::early : Looks::leisurely; }
  void issue_piece(const CopyOp& op, bool is_beside_work);  // REQUIRES: it fits a stage
  void pass(const CopyOp& op, const Batch& batch, Way way);
  void begin_piece(const Batch& batch, const GpuStage& stage, Way way);
  void end_piece();
  [[nodiscard]] bool may_go_straight(const CopyOp& op) const;
  void go_straight(const CopyOp& op);  // REQUIRES: it may
  void go_straight_in_slices(const CopyOp& op);
  void scatter(const CopyOp& op, const Batch& batch, const GpuStage& stage, bool is_beside_work) const;
  void launch(const CopyOp& op, const Batch& batch, const GpuStage& stage, bool is_beside_work) const;
  void move_runs(const CopyOp& op, const Batch& batch, DevicePtr memory);
  [[nodiscard]] GpuStage& next_stage();
  void finish_oldest();
  void scatter_what_is_filled();
  void scatter_until_the_oldest_ends();
  void scatter(InFlight& filled) const;

  GpuShared& shared_;
  LaneStreams& streams_;
  CopyBatch batch_;
  CopyTurns turns_;
  FixedQueue<InFlight, StagePool::most_stages> in_flight_;
  std::uint64_t issued_bytes_ = 0;     // since `begin`
  bool is_short_beside_work_ = false;  // the op
  bool has_edge_ = false;
  std::uint64_t step_ = 0;           // that this op's scatters come behind, until it is seen to be done
  std::optional<CopyOp> edge_left_;  // of a store: it comes behind the first stage's kernel
  bool awaits_edge_ = false;         // of a load: it comes behind the last stage
  const GpuEvent edge_;
  StagePace fills_;
  StagePace ends_;
};

// Thread safety: as of the other one, of the same lane.
class MixedCopies final : public CopyMechanism {
 public:
  explicit MixedCopies(StagedCopies& staged) : staged_(staged) {}

  [[nodiscard]] bool takes(const CopyOp& op) const override;
  void copy(const CopyOp& op) override { staged_.copy(op, Straight::third); }
  void settle() noexcept override { staged_.settle(); }

 private:
  StagedCopies& staged_;
};

// Which of the blocks left come next: some that go straight, and the batch of a stage behind them. Pure. REQUIRES: as
// of length_of_batch.
struct Cut {
  std::size_t straight = 0;
  std::size_t staged = 0;
};
[[nodiscard]] Cut next_cut(bool is_store, std::size_t before, std::size_t left, const BatchLengths& lengths,
                           Straight straight);

// How many blocks the edge of an op has that is to take so long: half of them at most, none where they cannot go
// straight, or are too few for the edge of an op alone. Pure.
[[nodiscard]] std::size_t length_of_edge(const CopyOp& op, std::chrono::nanoseconds duration);

// How many blocks the next batch of an op has, of those left; `before`: how many the one before had, 0 for the first. A
// store's first batch has only `least`, as no byte moves while it is gathered, and a load's last one, as none does
// while it is scattered; unless few are left. Pure. REQUIRES: left, growth and all lengths are at least 1, and least is
// not more than most.
[[nodiscard]] std::size_t length_of_batch(bool is_store, std::size_t before, std::size_t left,
                                          const BatchLengths& lengths);

}  // namespace flexkv::cuda
