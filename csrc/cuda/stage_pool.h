// StagePool: the GPU memory through which blocks pass, as stages of equal length that both directions of an agent
// share.
//
// A stage is free -> held by a direction (filled and emptied by work on the device) -> free. A direction that is alone
// may hold all of them; when the other one copies through stages too, half; when that one uses or wants a stage's
// stream only, all but one. Whoever holds more then gives stages back as its copies end.
//
// Each stage has the stream in which kernels fill or empty it, for whoever holds it, and at times the copy engine does
// (csrc/cuda/copy_turns.h); nothing in it touches memory while nobody holds it. So both directions together keep few
// streams: where a process has more than the driver has connections to the device for (8, unless
// CUDA_DEVICE_MAX_CONNECTIONS says otherwise), one stream's work comes to stand behind another's that waits. Thread
// safety: all members, any thread.
#pragma once
#include <array>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "cuda/gpu_device.h"

namespace flexkv::cuda {

// What a direction has an op use: nothing; one stage, of which it only takes the stream; stages to copy through.
enum class StageUse : std::uint8_t { none, one_stream, all };

struct GpuStage {
  GpuStage(const GpuDevice& device, std::size_t index_in, DevicePtr memory_in)
      : index(index_in), memory(memory_in), kernels(device), filled(device), done(device) {}
  const std::size_t index;  // among all stages
  const DevicePtr memory;
  const GpuStream kernels;
  const GpuEvent filled;  // its bytes are there
  const GpuEvent done;    // and have left it
};

class StagePool {
 public:
  static constexpr std::uint64_t total_bytes = std::uint64_t{128} << 20;
  static constexpr std::size_t most_stages = 4;

  // Stages of at least `slot_bytes`, where two of them are no more than is taken: longer slots pass in pieces. Takes
  // less than `total_bytes` where the GPU has no more. Throws Error when it has too little for two slots, or 8 MiB for
  // longer ones. REQUIRES: the thread has entered, as for the destructor.
  StagePool(const GpuDevice& device, std::uint64_t slot_bytes);
  StagePool(const StagePool&) = delete;
  StagePool& operator=(const StagePool&) = delete;

  [[nodiscard]] std::uint64_t stage_bytes() const { return stage_bytes_; }
  [[nodiscard]] std::size_t num_stages() const { return stages_.size(); }

  void begin(std::size_t side, StageUse use);  // a direction, 0 or 1, has an op
  void end(std::size_t side);                  // REQUIRES: it has given all stages back
  // A free stage; nullptr when the direction holds as many as it may, and must give one back first. Waits when it holds
  // none and there is none: throws Error after `wait_limit`, as nothing of the direction's is on its way then.
  [[nodiscard]] GpuStage* take(std::size_t side, std::chrono::nanoseconds wait_limit);
  [[nodiscard]] GpuStage* try_take(std::size_t side);  // a free stage; nullptr where there is none
  [[nodiscard]] bool are_shared() const;               // whether both directions copy through stages
  // Whether the direction holds more than it may: then a stage that is done goes back instead of being used again.
  [[nodiscard]] bool holds_too_many(std::size_t side) const;
  void give_back(std::size_t side, GpuStage* stage);

 private:
  // REQUIRES: mutex_ held; of `take_free`: there is a free stage.
  [[nodiscard]] std::size_t limit(std::size_t side) const;
  [[nodiscard]] GpuStage* take_free(std::size_t side);

  const GpuDevice& device_;
  std::uint64_t stage_bytes_ = 0;
  std::unique_ptr<GpuMemory> memory_;
  std::vector<std::unique_ptr<GpuStage>> stages_;
  mutable std::mutex mutex_;
  std::condition_variable freed_;
  // Guarded by mutex_:
  std::vector<GpuStage*> free_;
  std::array<std::size_t, 2> num_held_{};
  std::array<StageUse, 2> use_{};
};

}  // namespace flexkv::cuda
