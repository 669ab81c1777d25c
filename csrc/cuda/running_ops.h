// RunningOps: whether ops of the engine's ran beside a measurement. Thread safety: all members, any thread.
#pragma once
#include <atomic>
#include <cstdint>

namespace flexkv::cuda {

class RunningOps {
 public:
  // An op, for as long as it runs.
  class One {
   public:
    explicit One(RunningOps& ops) : ops_(ops) { ++ops_.num_begun_; }
    ~One() { ++ops_.num_ended_; }
    One(const One&) = delete;
    One& operator=(const One&) = delete;

   private:
    RunningOps& ops_;
  };

  [[nodiscard]] std::uint64_t num_begun() const { return num_begun_; }
  // Whether none runs, and none has begun since num_begun() was this.
  [[nodiscard]] bool is_quiet_since(std::uint64_t begun) const { return num_ended_ == begun && num_begun_ == begun; }

 private:
  std::atomic<std::uint64_t> num_begun_ = 0;
  std::atomic<std::uint64_t> num_ended_ = 0;
};

}  // namespace flexkv::cuda
