// Block keys: known answers of SHA-256, all implementations against each other and against the definition of a key.
#include <cstring>
#include <random>
#include <stdexcept>
#include <string>
#include <vector>

#include "cache/hash.h"
#include "cache/sha256.h"
#include "tests/check.h"

using namespace flexkv;

namespace {

using Bytes = std::vector<std::uint8_t>;

std::string hex(std::span<const std::uint8_t> bytes) {
  std::string text;
  for (const std::uint8_t byte : bytes) {
    text += "0123456789abcdef"[byte >> 4];
    text += "0123456789abcdef"[byte & 15];
  }
  return text;
}

Bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

BlockKey truncated_sha256(const Bytes& message) {
  const auto digest = sha256(message);
  BlockKey key;
  std::memcpy(&key, digest.data(), sizeof(key));
  return key;
}

// The definition in hash.h, word for word.
std::vector<BlockKey> keys_by_definition(const std::vector<std::int64_t>& tokens, std::size_t tokens_per_block,
                                         BlockKey previous) {
  std::vector<BlockKey> keys;
  for (std::size_t at = 0; at + tokens_per_block <= tokens.size(); at += tokens_per_block) {
    Bytes message;
    for (std::size_t i = 0; i < tokens_per_block; ++i) {
      for (int shift = 0; shift < 32; shift += 8) {
        message.push_back(static_cast<std::uint8_t>(tokens[at + i] >> shift));
      }
    }
    message.resize(message.size() + sizeof(previous));
    std::memcpy(message.data() + message.size() - sizeof(previous), &previous, sizeof(previous));
    previous = truncated_sha256(message);
    keys.push_back(previous);
  }
  return keys;
}

std::vector<std::int64_t> random_tokens(std::mt19937_64& random, std::size_t count) {
  std::vector<std::int64_t> tokens(count);
  for (auto& token : tokens) token = static_cast<std::int64_t>(random() >> 32);
  return tokens;
}

void known_answers_of_sha256() {
  CHECK(hex(sha256({})) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hex(sha256(bytes_of("abc"))) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hex(sha256(bytes_of("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"))) ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hex(sha256(Bytes(1000000, 'a'))) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void keys_follow_their_definition_at_every_block_size() {
  std::mt19937_64 random(1);
  const BlockKey root = {random(), random()};
  for (std::size_t tokens_per_block = 1; tokens_per_block <= 512; tokens_per_block *= 2) {
    for (std::size_t num_blocks = 0; num_blocks <= 7; ++num_blocks) {
      const auto tokens = random_tokens(random, num_blocks * tokens_per_block + tokens_per_block / 2);
      const auto expected = keys_by_definition(tokens, tokens_per_block, root);
      std::vector<BlockKey> keys(num_blocks);
      CHECK(hash_token_blocks(tokens, tokens_per_block, root, keys) == tokens.size());
      CHECK(keys == expected);
      sha256_detail::portable::hash_token_blocks(tokens, tokens_per_block, root, keys);
      CHECK(keys == expected);
    }
  }
}

void a_chain_can_be_continued_from_any_key() {
  std::mt19937_64 random(2);
  const auto tokens = random_tokens(random, 16 * 9);
  std::vector<BlockKey> keys(9);
  CHECK(hash_token_blocks(tokens, 16, {1, 2}, keys) == tokens.size());
  for (std::size_t cut = 1; cut < 9; ++cut) {
    std::vector<BlockKey> rest(9 - cut);
    const auto tail = std::span(tokens).subspan(16 * cut);
    CHECK(hash_token_blocks(tail, 16, keys[cut - 1], rest) == tail.size());
    CHECK(std::equal(rest.begin(), rest.end(), keys.begin() + static_cast<std::ptrdiff_t>(cut)));
  }
}

void tokens_out_of_range_are_named_and_no_key_is_written() {
  const std::vector<std::int64_t> bad_values = {-1, std::int64_t{1} << 32, INT64_MIN, INT64_MAX};
  for (const std::int64_t bad : bad_values) {
    for (const std::size_t at : {std::size_t{0}, std::size_t{17}, std::size_t{600}, std::size_t{1029}}) {
      std::vector<std::int64_t> tokens(1030, 7);  // 1024 in blocks, 6 in the tail
      tokens[at] = bad;
      tokens[1029] = bad;
      std::vector<BlockKey> keys(64, BlockKey{5, 5});
      CHECK(hash_token_blocks(tokens, 16, {}, keys) == at);
      for (const BlockKey& key : keys) CHECK((key == BlockKey{5, 5}));
    }
  }
  const std::vector<std::int64_t> largest(16, 0xffffffff);
  std::vector<BlockKey> keys(1);
  CHECK(hash_token_blocks(largest, 16, {}, keys) == 16);
}

void bad_arguments_are_refused() {
  const std::vector<std::int64_t> tokens(32, 1);
  std::vector<BlockKey> keys(2);
  CHECK_THROWS(hash_token_blocks(tokens, 0, {}, keys), std::invalid_argument);
  CHECK_THROWS(hash_token_blocks(tokens, 12, {}, keys), std::invalid_argument);
  CHECK_THROWS(hash_token_blocks(tokens, 8, {}, keys), std::invalid_argument);
  const Bytes hashes(80, 1);
  const std::span<const std::uint8_t> all(hashes);
  CHECK_THROWS(mix_engine_hashes(all, 40, {}, keys), std::invalid_argument);
  CHECK_THROWS(mix_engine_hashes(all.first(0), 0, {}, keys), std::invalid_argument);
  CHECK_THROWS(mix_engine_hashes(all, 32, {}, keys), std::invalid_argument);
}

void mixed_keys_follow_their_definition_at_every_width() {
  std::mt19937_64 random(3);
  const BlockKey root = {random(), random()};
  for (std::size_t width = 1; width <= sha256_detail::max_mix_width; ++width) {
    for (const std::size_t count : {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{5}, std::size_t{259}}) {
      Bytes hashes(width * count);
      for (auto& byte : hashes) byte = static_cast<std::uint8_t>(random());
      std::vector<BlockKey> expected;
      std::vector<const std::uint8_t*> rows;
      for (std::size_t i = 0; i < count; ++i) {
        rows.push_back(hashes.data() + i * width);
        Bytes message(sizeof(root) + width);
        std::memcpy(message.data(), &root, sizeof(root));
        std::memcpy(message.data() + sizeof(root), rows.back(), width);
        expected.push_back(truncated_sha256(message));
      }
      std::vector<BlockKey> keys(count);
      mix_engine_hashes(std::span<const std::uint8_t>(hashes), width, root, keys);
      CHECK(keys == expected);
      sha256_detail::portable::mix(rows, width, root, keys);
      CHECK(keys == expected);
      if (!sha256_detail::sha_ni::available()) continue;
      sha256_detail::sha_ni::mix(rows, width, root, keys);
      CHECK(keys == expected);
    }
  }
}

}  // namespace

int main() {
  known_answers_of_sha256();
  keys_follow_their_definition_at_every_block_size();
  a_chain_can_be_continued_from_any_key();
  tokens_out_of_range_are_named_and_no_key_is_written();
  bad_arguments_are_refused();
  mixed_keys_follow_their_definition_at_every_width();
}
