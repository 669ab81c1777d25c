// What every fuzz target has: one entry that libFuzzer (scripts/fuzz.sh) and the replay driver (replay_main.cpp) call.
// A target takes its input as choices or as a stream of bytes, never refuses one, and aborts with a message when its
// oracle is broken.
#pragma once
#include <cstddef>
#include <cstdint>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);
