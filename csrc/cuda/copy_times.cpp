#include "cuda/copy_times.h"

#include <algorithm>
#include <limits>
#include <ranges>

namespace flexkv::cuda {
namespace {

constexpr double hopeless = 2.0;      // times the fastest one's time
constexpr double nearly_same = 1.03;  // times the least time

// The least times of one mechanism's copies.
class LeastTimes {
 public:
  void add(double us) {
    times_.back() = std::min(times_.back(), us);
    std::ranges::sort(times_);
  }
  [[nodiscard]] double least() const { return times_.front(); }
  [[nodiscard]] bool is_known() const { return times_[1] < never; }
  [[nodiscard]] bool has_settled() const { return is_known() && times_.back() <= nearly_same * least(); }

 private:
  static constexpr double never = std::numeric_limits<double>::infinity();
  std::array<double, 3> times_ = {never, never, never};  // in order
};

class Contest {
 public:
  explicit Contest(AreIn& are_in) : are_in_(are_in) {}

  // False when it is over before all have had theirs.
  bool take_turn(const CopySample& sample, const std::function<bool()>& is_over) {
    for (std::size_t i = 0; i < num_mechanisms; ++i) {
      if (!are_in_[i]) continue;
      if (is_over()) return false;
      const std::optional<double> taken_us = sample(static_cast<MechanismKind>(i));
      if (taken_us) times_[i].add(*taken_us);
    }
    return true;
  }

  void leave_out_the_hopeless(MechanismKind usual) {
    const double fastest_us = std::ranges::min(times_ | std::views::transform(&LeastTimes::least));
    for (std::size_t i = 0; i < num_mechanisms; ++i) {
      const bool is_hopeless = times_[i].is_known() && times_[i].least() > hopeless * fastest_us;
      if (is_hopeless && static_cast<MechanismKind>(i) != usual) are_in_[i] = false;
    }
  }

  [[nodiscard]] bool have_settled() const {
    for (std::size_t i = 0; i < num_mechanisms; ++i) {
      if (are_in_[i] && !times_[i].has_settled()) return false;
    }
    return true;
  }

  [[nodiscard]] CellFigures figures() const {
    CellFigures figures{};
    for (std::size_t i = 0; i < num_mechanisms; ++i) {
      if (times_[i].is_known()) figures[i] = times_[i].least();
    }
    return figures;
  }

 private:
  AreIn& are_in_;
  std::array<LeastTimes, num_mechanisms> times_{};
};

}  // namespace

std::optional<CellFigures> times_in_turns(AreIn& are_in, MechanismKind usual, const CopySample& sample,
                                          const std::function<bool()>& is_over) {
  Contest contest(are_in);
  for (int turn = 1; turn <= most_turns; ++turn) {
    if (!contest.take_turn(sample, is_over)) return std::nullopt;
    contest.leave_out_the_hopeless(usual);
    if (turn >= least_turns && contest.have_settled()) break;
  }
  return contest.figures();
}

}  // namespace flexkv::cuda
