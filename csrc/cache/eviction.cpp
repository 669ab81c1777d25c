// The names of the eviction policies.
#include "cache/eviction.h"

#include <stdexcept>

#include "cache/lru_policy.h"

namespace flexkv {

std::vector<std::string> eviction_policy_names() { return {"lru"}; }

std::unique_ptr<EvictionPolicy> make_eviction_policy(std::string_view name, std::span<IndexEntry> entries) {
  if (name == "lru") return std::make_unique<LruPolicy>(entries);
  std::string known;
  for (const std::string& each : eviction_policy_names()) known += (known.empty() ? "" : ", ") + each;
  throw std::invalid_argument("unknown eviction policy '" + std::string(name) + "'; known: " + known);
}

}  // namespace flexkv
