// Throwing what the kernel says.
#pragma once
#include <string>
#include <system_error>

namespace flexkv {

// Throws std::system_error: `error` is an errno, `what` says what was tried.
[[noreturn]] inline void throw_errno(int error, const std::string& what) {
  throw std::system_error(error, std::generic_category(), what);
}

}  // namespace flexkv
