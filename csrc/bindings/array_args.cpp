#include "bindings/array_args.h"

#include <cstring>
#include <string>
#include <string_view>

namespace nb = nanobind;

namespace flexkv {
namespace {

const char* type_of(nb::handle object) { return Py_TYPE(object.ptr())->tp_name; }

[[noreturn]] void raise_value_error(const std::string& message) { throw nb::value_error(message.c_str()); }

std::string expected(const char* name, const char* dtype, int num_dims) {
  return std::string(name) + " must be a C-contiguous, " + std::to_string(num_dims) + "-D " + dtype + " array";
}

}  // namespace

BufferArg::BufferArg(nb::handle object, const char* name, const char* dtype, const char* formats,
                     std::size_t item_bytes, int num_dims) {
  if (PyObject_CheckBuffer(object.ptr()) == 0) {
    throw nb::type_error((expected(name, dtype, num_dims) + ", got " + type_of(object)).c_str());
  }
  if (PyObject_GetBuffer(object.ptr(), &view_, PyBUF_STRIDES | PyBUF_FORMAT) != 0) {
    PyErr_Clear();
    raise_value_error(expected(name, dtype, num_dims) + ", got one whose elements no buffer can hold");
  }
  try {
    check(name, dtype, formats, item_bytes, num_dims);
  } catch (...) {
    PyBuffer_Release(&view_);
    throw;
  }
}

void BufferArg::check(const char* name, const char* dtype, const char* formats, std::size_t item_bytes,
                      int num_dims) const {
  std::string_view format = view_.format == nullptr ? "B" : view_.format;
  if (format.size() == 2 && (format[0] == '@' || format[0] == '=')) format.remove_prefix(1);
  const bool right_type = format.size() == 1 && std::string_view(formats).find(format[0]) != std::string_view::npos &&
                          static_cast<std::size_t>(view_.itemsize) == item_bytes;
  if (!right_type) {
    raise_value_error(expected(name, dtype, num_dims) + ", got elements of format '" +
                      (view_.format == nullptr ? "B" : view_.format) + "'");
  }
  if (view_.ndim != num_dims) {
    raise_value_error(expected(name, dtype, num_dims) + ", got " + std::to_string(view_.ndim) + " dimensions");
  }
  if (PyBuffer_IsContiguous(&view_, 'C') == 0) {
    raise_value_error(expected(name, dtype, num_dims) + ", got one with gaps between its elements");
  }
  if (reinterpret_cast<std::uintptr_t>(view_.buf) % item_bytes != 0) {
    raise_value_error(std::string(name) + " must be aligned to its element size");
  }
}

Int64Arg::Int64Arg(nb::handle object, const char* name) : buffer_(object, name, "int64", "lq", 8, 1) {}

KeysArg::KeysArg(nb::handle object, const char* name) : rows_(object, name) {
  if (rows_.width() != sizeof(BlockKey)) {
    raise_value_error(std::string(name) + " must have shape [n, 16], got [" + std::to_string(rows_.num_rows()) + ", " +
                      std::to_string(rows_.width()) + "]");
  }
  const std::uint8_t* const data = rows_.bytes().data();
  if (reinterpret_cast<std::uintptr_t>(data) % alignof(BlockKey) == 0) {
    span_ = {reinterpret_cast<const BlockKey*>(data), rows_.num_rows()};
    return;
  }
  aligned_.resize(rows_.num_rows());
  std::memcpy(aligned_.data(), data, rows_.bytes().size());
  span_ = aligned_;
}

BlockKey key_arg(nb::handle object, const char* name) {
  BlockKey key;
  if (PyBytes_Check(object.ptr()) == 0) {
    throw nb::type_error((std::string(name) + " must be bytes of length 16, got " + type_of(object)).c_str());
  }
  const Py_ssize_t length = PyBytes_GET_SIZE(object.ptr());
  if (length != static_cast<Py_ssize_t>(sizeof(key))) {
    raise_value_error(std::string(name) + " must be bytes of length 16, got " + std::to_string(length));
  }
  std::memcpy(&key, PyBytes_AS_STRING(object.ptr()), sizeof(key));
  return key;
}

std::int64_t int_arg(std::int64_t value, const char* name, std::int64_t low, std::int64_t high) {
  if (value < low || value > high) {
    raise_value_error(std::string(name) + " must be in [" + std::to_string(low) + ", " + std::to_string(high) +
                      "], got " + std::to_string(value));
  }
  return value;
}

}  // namespace flexkv
