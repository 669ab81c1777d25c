#include "bindings/copy_tuning.h"

#include <nanobind/stl/string.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>
#include <string_view>

namespace nb = nanobind;

namespace flexkv {
namespace {

using cuda::CopyCell;
using cuda::MechanismKind;

const char* name_of(cuda::TuningState state) {
  switch (state) {
    case cuda::TuningState::untuned:
      return "UNTUNED";
    case cuda::TuningState::measuring:
      return "MEASURING";
    case cuda::TuningState::measured:
      return "MEASURED";
    case cuda::TuningState::given:
      return "GIVEN";
    case cuda::TuningState::failed:
      break;
  }
  return "FAILED";
}

nb::str name_of(MechanismKind kind) {
  const std::string_view name = cuda::mechanism_names[static_cast<std::size_t>(kind)];
  return nb::str(name.data(), name.size());
}

}  // namespace

std::shared_ptr<cuda::GpuBackend> gpu_backend(const std::shared_ptr<CopyBackend>& backend) {
  return std::dynamic_pointer_cast<cuda::GpuBackend>(backend);
}

nb::dict tuning_of(const cuda::GpuBackend* backend) {
  nb::dict dict;
  if (backend == nullptr) return dict;
  const cuda::CopyChoices& choices = backend->choices();
  const cuda::CopyChoices::Report report = choices.report();
  nb::list mechanisms;
  for (const std::string_view name : cuda::mechanism_names) mechanisms.append(nb::str(name.data(), name.size()));
  nb::list cells;
  nb::list us;
  nb::list idle;
  nb::list busy_tiny;
  nb::list busy_short;
  nb::list busy_long;
  for (std::size_t i = 0; i < CopyCell::count; ++i) {
    const CopyCell cell = CopyCell::at(i);
    cells.append(nb::make_tuple(cell.direction == protocol::Direction::load ? "load" : "store",
                                CopyCell::blocks_of_size[cell.size], cell.is_scattered ? "scattered" : "adjacent"));
    nb::list figures;
    for (const double figure : report.figures[i]) figures.append(figure);
    us.append(figures);
    idle.append(name_of(choices.choose(cell, cuda::Beside::nothing)));
    busy_tiny.append(name_of(choices.choose(cell, cuda::Beside::work_and_tiny)));
    busy_short.append(name_of(choices.choose(cell, cuda::Beside::work_and_short)));
    busy_long.append(name_of(choices.choose(cell, cuda::Beside::work_and_long)));
  }
  dict["gpu"] = backend->gpu_name();
  dict["driver"] = backend->driver_version();
  dict["layout"] = backend->layout_class();
  dict["state"] = name_of(report.state);
  dict["why_not"] = report.why_not;
  dict["usual"] = name_of(choices.usual());
  dict["mechanisms"] = mechanisms;
  dict["cells"] = cells;
  dict["us"] = us;
  dict["idle"] = idle;
  dict["busy_tiny"] = busy_tiny;
  dict["busy_short"] = busy_short;
  dict["busy_long"] = busy_long;
  return dict;
}

cuda::CopyFigures to_figures(const CopyFiguresArray& figures) {
  cuda::CopyFigures taken{};
  const double* next = figures.data();
  for (cuda::CellFigures& cell : taken) {
    for (double& figure : cell) {
      figure = *next++;
      if (!std::isfinite(figure) || figure < 0) {
        throw std::invalid_argument("us has " + std::to_string(figure) + ", which is no time");
      }
    }
  }
  return taken;
}

MechanismKind mechanism_named(const std::string& name) {
  const auto* const found = std::ranges::find(cuda::mechanism_names, name);
  if (found == cuda::mechanism_names.end()) {
    std::string known;
    for (const std::string_view one : cuda::mechanism_names) known += (known.empty() ? "" : ", ") + std::string(one);
    throw std::invalid_argument("mechanism is '" + name + "'; " + known + " are known");
  }
  return static_cast<MechanismKind>(found - cuda::mechanism_names.begin());
}

}  // namespace flexkv
