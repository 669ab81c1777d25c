// What Python sees of a GPU backend's tuning: a dictionary, and figures as an array.
#pragma once
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <memory>
#include <string>

#include "cuda/gpu_backend.h"
#include "transfer/block_copier.h"

namespace flexkv {

using CopyFiguresArray = nanobind::ndarray<const double,
                                           nanobind::shape<static_cast<nanobind::ssize_t>(cuda::CopyCell::count),
                                                           static_cast<nanobind::ssize_t>(cuda::num_mechanisms)>,
                                           nanobind::c_contig, nanobind::device::cpu>;

// The GPU backend that it is; nullptr when it is another, or none.
[[nodiscard]] std::shared_ptr<cuda::GpuBackend> gpu_backend(const std::shared_ptr<CopyBackend>& backend);

// Keys: gpu, driver, layout, state, why_not, usual, mechanisms, cells ((direction, blocks, slots) each), us (a list of
// figures for each cell), idle and busy (the mechanism of each cell). Empty without a GPU.
[[nodiscard]] nanobind::dict tuning_of(const cuda::GpuBackend* backend);

// Throws std::invalid_argument when a figure is no time.
[[nodiscard]] cuda::CopyFigures to_figures(const CopyFiguresArray& figures);

// Throws std::invalid_argument, with the names that are known.
[[nodiscard]] cuda::MechanismKind mechanism_named(const std::string& name);

}  // namespace flexkv
