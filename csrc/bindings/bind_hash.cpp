// Bindings of the block hash. Large arrays are hashed without the GIL; a list of bytes objects is read where they lie,
// which only the GIL makes safe (20 ns each).
#include <nanobind/nanobind.h>

#include <algorithm>
#include <array>
#include <stdexcept>
#include <string>

#include "bindings/array_args.h"
#include "bindings/array_results.h"
#include "bindings/bindings.h"
#include "bindings/gil.h"
#include "cache/hash.h"

namespace nb = nanobind;
using namespace nb::literals;

namespace flexkv {
namespace {

constexpr std::size_t large_tokens = 4096;  // about 10 us of hashing
constexpr std::size_t large_rows = 512;

// Runs `work`, without the GIL when it takes long enough to be worth the switch.
template <typename Work>
auto run_unlocked(bool is_long, const Work& work) {
  if (!is_long) return work();
  const GilRelease release;
  return work();
}

KeyArray hash_tokens(nb::handle tokens, std::int64_t tokens_per_block, nb::handle parent) {
  const Int64Arg token_array(tokens, "tokens");
  const std::span<const std::int64_t> values = token_array.span();
  const BlockKey parent_key = key_arg(parent, "parent");
  const auto block_tokens =
      static_cast<std::size_t>(int_arg(tokens_per_block, "tokens_per_block", 1, std::int64_t{1} << 30));
  std::vector<BlockKey> keys(values.size() / block_tokens);
  const std::size_t bad = run_unlocked(values.size() > large_tokens,
                                       [&] { return hash_token_blocks(values, block_tokens, parent_key, keys); });
  if (bad != values.size()) {
    throw std::invalid_argument("tokens[" + std::to_string(bad) + "] = " + std::to_string(values[bad]) +
                                " is out of range [0, 2^32)");
  }
  return to_array(std::move(keys));
}

std::span<PyObject* const> items_of(nb::handle sequence) {
  return {PySequence_Fast_ITEMS(sequence.ptr()), static_cast<std::size_t>(PySequence_Fast_GET_SIZE(sequence.ptr()))};
}

const std::uint8_t* hash_at(std::span<PyObject* const> items, std::size_t i, Py_ssize_t width) {
  PyObject* const item = items[i];
  const std::string name =
      PyBytes_Check(item) != 0 && PyBytes_GET_SIZE(item) == width ? std::string() : "hashes[" + std::to_string(i) + "]";
  if (name.empty()) return reinterpret_cast<const std::uint8_t*>(PyBytes_AS_STRING(item));
  if (PyBytes_Check(item) == 0) {
    throw nb::type_error((name + " must be bytes, got " + Py_TYPE(item)->tp_name).c_str());
  }
  throw std::invalid_argument(name + " has " + std::to_string(PyBytes_GET_SIZE(item)) + " bytes, the first one " +
                              std::to_string(width));
}

KeyArray mix_list(std::span<PyObject* const> items, const BlockKey& root, std::size_t start) {
  std::vector<BlockKey> keys(items.size() - start);
  const bool sized = !keys.empty() && PyBytes_Check(items[start]) != 0;
  const Py_ssize_t width = sized ? PyBytes_GET_SIZE(items[start]) : 0;
  std::array<const std::uint8_t*, 256> rows;
  for (std::size_t at = 0; at < keys.size(); at += rows.size()) {
    const std::size_t count = std::min(rows.size(), keys.size() - at);
    for (std::size_t i = 0; i < count; ++i) rows[i] = hash_at(items, start + at + i, width);
    mix_engine_hashes(std::span<const std::uint8_t* const>(rows).first(count), static_cast<std::size_t>(width), root,
                      std::span(keys).subspan(at, count));
  }
  return to_array(std::move(keys));
}

KeyArray mix_rows(nb::handle hashes, const BlockKey& root, std::int64_t start) {
  const RowsArg rows(hashes, "hashes");
  const auto first = static_cast<std::size_t>(int_arg(start, "start", 0, static_cast<std::int64_t>(rows.num_rows())));
  std::vector<BlockKey> keys(rows.num_rows() - first);
  run_unlocked(keys.size() > large_rows, [&] {
    mix_engine_hashes(rows.bytes().subspan(first * rows.width()), rows.width(), root, keys);
    return true;
  });
  return to_array(std::move(keys));
}

KeyArray mix(nb::handle hashes, nb::handle root, std::int64_t start) {
  const BlockKey root_key = key_arg(root, "root");
  if (PyList_Check(hashes.ptr()) == 0 && PyTuple_Check(hashes.ptr()) == 0) return mix_rows(hashes, root_key, start);
  const auto items = items_of(hashes);
  const auto first = int_arg(start, "start", 0, static_cast<std::int64_t>(items.size()));
  return mix_list(items, root_key, static_cast<std::size_t>(first));
}

nb::bytes mix_one(const nb::bytes& hash, nb::handle root) {
  const auto* const row = reinterpret_cast<const std::uint8_t*>(hash.c_str());
  BlockKey key;
  mix_engine_hashes(std::span<const std::uint8_t* const>(&row, 1), hash.size(), key_arg(root, "root"),
                    std::span<BlockKey>(&key, 1));
  return nb::bytes(&key, sizeof key);
}

nb::bytes sha256_of(const nb::bytes& data) {
  const auto digest = sha256({reinterpret_cast<const std::uint8_t*>(data.c_str()), data.size()});
  return nb::bytes(digest.data(), digest.size());
}

}  // namespace

void bind_hash(nb::module_& m) {
  m.def("hash_token_blocks", &hash_tokens, "tokens"_a.none(), "tokens_per_block"_a, "parent"_a.none(),
        nb::sig("def hash_token_blocks(tokens: " SLOTS ", tokens_per_block: int, parent: bytes) -> " KEYS),
        "Chained keys of the whole blocks of the tokens, after the key `parent`. Shape: [n, 16].");
  m.def("mix_engine_hashes", &mix, "hashes"_a.none(), "root"_a.none(), "start"_a = 0,
        nb::sig("def mix_engine_hashes(hashes: list[bytes] | tuple[bytes, ...] | " KEYS
                ", root: bytes, start: int = 0) -> " KEYS),
        "Keys of the engine's hashes[start:], all of one width from 1 to 39 bytes. Shape: [n - start, 16].");
  m.def("mix_engine_hash", &mix_one, "hash"_a, "root"_a.none(),
        nb::sig("def mix_engine_hash(hash: bytes, root: bytes) -> bytes"),
        "Key of one engine hash, as mix_engine_hashes makes it.");
  m.def("sha256", &sha256_of, "data"_a, "SHA-256 of the bytes.");
  m.def("hash_uses_sha_ni", &hash_uses_sha_ni, "True when the CPU's SHA instructions are in use.");
}

}  // namespace flexkv
