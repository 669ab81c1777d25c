// Array arguments of the bindings, read through the buffer protocol: nothing is converted and nothing large is copied.
// What does not fit raises ValueError (TypeError for what is no array at all) with the argument's name and what it got.
#pragma once
#include <nanobind/nanobind.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "cache/hash.h"

namespace flexkv {

// A C-contiguous buffer of one element type, held as long as this lives. Needs the GIL to be made and to end.
class BufferArg {
 public:
  // `formats`: struct-module characters that stand for the element type. REQUIRES: item_bytes is that type's size.
  BufferArg(nanobind::handle object, const char* name, const char* dtype, const char* formats, std::size_t item_bytes,
            int num_dims);
  ~BufferArg() { PyBuffer_Release(&view_); }
  BufferArg(const BufferArg&) = delete;
  BufferArg& operator=(const BufferArg&) = delete;

  [[nodiscard]] const void* data() const { return view_.buf; }
  [[nodiscard]] std::size_t shape(int dim) const { return static_cast<std::size_t>(view_.shape[dim]); }

 private:
  void check(const char* name, const char* dtype, const char* formats, std::size_t item_bytes, int num_dims) const;
  Py_buffer view_;
};

// int64[n]
class Int64Arg {
 public:
  Int64Arg(nanobind::handle object, const char* name);
  [[nodiscard]] std::span<const std::int64_t> span() const {
    return {static_cast<const std::int64_t*>(buffer_.data()), buffer_.shape(0)};
  }

 private:
  BufferArg buffer_;
};

template <typename T>
inline constexpr const char* column_dtype = nullptr;  // of the types that columns can have; and their formats
template <typename T>
inline constexpr const char* column_formats = nullptr;
template <>
inline constexpr const char* column_dtype<std::uint32_t> = "uint32";
template <>
inline constexpr const char* column_formats<std::uint32_t> = "IL";
template <>
inline constexpr const char* column_dtype<std::uint16_t> = "uint16";
template <>
inline constexpr const char* column_formats<std::uint16_t> = "H";
template <>
inline constexpr const char* column_dtype<std::uint8_t> = "uint8";
template <>
inline constexpr const char* column_formats<std::uint8_t> = "B";

// uint32[n], uint16[n] or uint8[n]
template <typename T>
class ColumnArg {
  static_assert(column_dtype<T> != nullptr);

 public:
  ColumnArg(nanobind::handle object, const char* name)
      : buffer_(object, name, column_dtype<T>, column_formats<T>, sizeof(T), 1) {}
  [[nodiscard]] std::span<const T> span() const { return {static_cast<const T*>(buffer_.data()), buffer_.shape(0)}; }

 private:
  BufferArg buffer_;
};

// uint8[n, w]
class RowsArg {
 public:
  RowsArg(nanobind::handle object, const char* name) : buffer_(object, name, "uint8", "B", 1, 2) {}
  [[nodiscard]] std::size_t num_rows() const { return buffer_.shape(0); }
  [[nodiscard]] std::size_t width() const { return buffer_.shape(1); }
  [[nodiscard]] std::span<const std::uint8_t> bytes() const {
    return {static_cast<const std::uint8_t*>(buffer_.data()), num_rows() * width()};
  }

 private:
  BufferArg buffer_;
};

// uint8[n, 16]: block keys. Copied only when they do not lie on an 8-byte boundary.
class KeysArg {
 public:
  KeysArg(nanobind::handle object, const char* name);
  [[nodiscard]] std::span<const BlockKey> span() const { return span_; }

 private:
  RowsArg rows_;
  std::vector<BlockKey> aligned_;
  std::span<const BlockKey> span_;
};

// bytes of length 16: one key.
[[nodiscard]] BlockKey key_arg(nanobind::handle object, const char* name);

// `value` when it is in [low, high]; else ValueError.
[[nodiscard]] std::int64_t int_arg(std::int64_t value, const char* name, std::int64_t low, std::int64_t high);

}  // namespace flexkv
