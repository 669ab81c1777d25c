// CopyChoices: which mechanism moves an op, by what kind of op it is (a cell), from figures that were measured on this
// GPU or come from an earlier measurement.
//
// As long as there are none, and where they show no clear gain, it is the layout's usual mechanism. Load is not
// measured: what stands for it would have to be the engine's own kernels. Beside a busy engine no kernel reads or
// writes the host's memory, whatever that gains, as it slows large products by far more than contiguous copies do; and
// the copy engine alone is preferred to stages, as it waits for no room and takes none, and moves each byte once
// (docs/PERFORMANCE.md): for tiny ops where it takes a half longer at most on an idle GPU, for others a twentieth;
// and for long ones where it takes more, a mixture of both where that does not.
// Thread safety: all members, any thread.
#pragma once
#include <array>
#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "transfer/protocol.h"

namespace flexkv::cuda {

enum class MechanismKind : std::uint8_t { staged, direct, strided, batched, zero_copy, mixed };
inline constexpr std::size_t num_mechanisms = 6;
inline constexpr std::array<std::string_view, num_mechanisms> mechanism_names = {"staged",  "direct",    "strided",
                                                                                 "batched", "zero_copy", "mixed"};

// Ops of one kind. `size` is an index into blocks_of_size: ops of at least so many blocks and fewer than of the next.
// Scattered: their slots lie in runs of less than 4 on average; an op of one block is not.
struct CopyCell {
  static constexpr std::array<std::size_t, 4> blocks_of_size = {1, 4, 16, 64};
  static constexpr std::size_t count = 2 * blocks_of_size.size() * 2;

  protocol::Direction direction = protocol::Direction::load;
  std::size_t size = 0;
  bool is_scattered = false;

  [[nodiscard]] std::size_t index() const;
  [[nodiscard]] static CopyCell at(std::size_t index);
  // How many blocks an op has that is measured for the cell, of at most so many bytes unless one block has more.
  static constexpr std::uint64_t most_measured_bytes = std::uint64_t{48} << 20;
  // Of fewer bytes no figure tells of ops above 32 MiB.
  static constexpr std::uint64_t least_measured_bytes_for_long = std::uint64_t{16} << 20;
  [[nodiscard]] std::size_t num_measured_blocks(std::uint64_t block_bytes,
                                                std::uint64_t most_bytes = most_measured_bytes) const;
};

[[nodiscard]] CopyCell cell_of(protocol::Direction direction, std::span<const std::int64_t> slots);

// Microseconds of an op of as many blocks as the cell's size says (fewer, where those have many bytes); 0: not
// measured.
using CellFigures = std::array<double, num_mechanisms>;
using CopyFigures = std::array<CellFigures, CopyCell::count>;

// What an op runs beside: nothing; or work of the engine's, and it is tiny, so that stages have a beginning and an end
// and no middle; it is short; or it is long, so that they have hardly anything but a middle.
enum class Beside : std::uint8_t { nothing, work_and_tiny, work_and_short, work_and_long };
inline constexpr std::size_t num_besides = 4;

// The mechanism that the figures speak for. Pure.
[[nodiscard]] MechanismKind best_of(const CellFigures& figures, MechanismKind usual, Beside beside);

// untuned -> measuring -> measured | failed ; or given. While it is not measured or given, the usual mechanism is used.
enum class TuningState : std::uint8_t { untuned, measuring, measured, given, failed };

class CopyChoices {
 public:
  explicit CopyChoices(MechanismKind usual);

  [[nodiscard]] MechanismKind usual() const { return usual_; }
  [[nodiscard]] MechanismKind choose(const CopyCell& cell, Beside beside) const {
    return chosen_[cell.index()][static_cast<std::size_t>(beside)].load(std::memory_order_relaxed);
  }

  // Uses these from now on. False, and nothing changes, when there are some already, or they are measured just now.
  bool give(const CopyFigures& figures);
  // For measurements of one mechanism: it moves all ops that it takes. Nothing is tuned any more.
  void force(MechanismKind kind);
  [[nodiscard]] bool is_forced() const { return is_forced_.load(std::memory_order_relaxed); }

  // To be called by whoever measures. False when there is nothing to measure, or somebody else does.
  [[nodiscard]] bool begin_measuring();
  void end_measuring(const CopyFigures& figures);
  void postpone();                       // it may be tried again
  void give_up(const std::string& why);  // it is not tried again

  struct Report {
    TuningState state = TuningState::untuned;
    std::string why_not;  // failed: why
    CopyFigures figures{};
  };
  [[nodiscard]] Report report() const;
  // Until it is measured, given or failed; false after timeout_s.
  [[nodiscard]] bool wait_settled(double timeout_s) const;

 private:
  void use(const CopyFigures& figures);  // REQUIRES: mutex_ held
  void become(TuningState state);        // REQUIRES: mutex_ held

  const MechanismKind usual_;
  std::array<std::array<std::atomic<MechanismKind>, num_besides>, CopyCell::count> chosen_{};
  std::atomic<bool> is_forced_ = false;
  mutable std::mutex mutex_;
  mutable std::condition_variable changed_;
  Report report_;  // guarded by mutex_
};

}  // namespace flexkv::cuda
