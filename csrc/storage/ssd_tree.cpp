#include "storage/ssd_tree.h"

#include <fcntl.h>
#include <sched.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <system_error>
#include <utility>

#include "transfer/os_error.h"

namespace flexkv {
namespace {

constexpr mode_t owner_only = 0700;
// A tool that asks who serves has the lock, shared, for an instant: that must not look like somebody who serves.
constexpr int lock_attempts = 20;

[[nodiscard]] std::optional<struct stat> stat_of(const std::string& path) {
  struct stat info{};
  if (::lstat(path.c_str(), &info) == 0) return info;
  if (errno == ENOENT || errno == ENOTDIR) return std::nullopt;
  throw_errno(errno, path);
}

// What an operator can mend is an error of configuration.
[[noreturn]] void refuse_to_make(int error, const std::string& path) {
  if (error == EACCES || error == EPERM || error == EROFS) {
    throw SsdConfigError(path + " cannot be written to (" + std::generic_category().message(error) +
                         "); name a directory that this user can write to, or change its owner");
  }
  if (error == ENOENT) {
    throw SsdConfigError(path +
                         " cannot be made: the directory that it is to lie in does not exist; make it, or mount "
                         "what belongs there");
  }
  throw_errno(error, path);
}

// Only the directory itself, none above it. True when it is new.
bool make_directory(const std::string& path) {
  if (::mkdir(path.c_str(), owner_only) == 0) return true;
  if (errno != EEXIST) refuse_to_make(errno, path);
  return false;
}

void check_directory(const std::string& path) {
  const auto info = stat_of(path);
  if (info && S_ISDIR(info->st_mode)) return;
  const char* what = info && S_ISLNK(info->st_mode) ? " is a symbolic link" : " is not a directory";
  throw SsdConfigError(path + what + "; name the directory itself, or remove what is in its place");
}

// What is in it would be read, or replaced, by others.
void check_ours_alone(const std::string& path) {
  const auto info = stat_of(path);
  if (!info) throw_errno(ENOENT, path);
  if (info->st_uid != ::geteuid()) {
    throw SsdConfigError(path + " belongs to user " + std::to_string(info->st_uid) + ", and this process is user " +
                         std::to_string(::geteuid()) + "; remove it, or name another root");
  }
  if ((info->st_mode & (S_IWGRP | S_IWOTH)) != 0) {
    throw SsdConfigError(path + " can be written to by others; chmod it to 0700, or remove it");
  }
}

[[nodiscard]] std::string parent_of(const std::string& path) {
  std::filesystem::path whole(path);
  if (!whole.has_filename()) whole = whole.parent_path();  // "root/"
  const std::filesystem::path parent = whole.parent_path();
  return parent.empty() ? "." : parent.string();
}

[[nodiscard]] std::uint64_t footprint_of(const std::string& path) {
  const auto info = stat_of(path);
  if (!info || !S_ISREG(info->st_mode)) return 0;
  constexpr std::uint64_t stat_block_bytes = 512;
  const std::uint64_t size = (static_cast<std::uint64_t>(info->st_size) + ssd_page_bytes - 1) / ssd_page_bytes;
  return std::max(size * ssd_page_bytes, static_cast<std::uint64_t>(info->st_blocks) * stat_block_bytes);
}

// A file that cannot be opened or is none counts as foreign: it is left alone.
[[nodiscard]] HeaderState look_at_header(const std::string& path, SsdHeader& header) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) return errno == ENOENT ? HeaderState::empty : HeaderState::foreign;
  std::array<std::byte, ssd_header_bytes> bytes{};
  std::size_t filled = 0;
  while (filled < bytes.size()) {
    const ssize_t got = ::pread(file.get(), bytes.data() + filled, bytes.size() - filled, static_cast<off_t>(filled));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return errno == EIO ? HeaderState::damaged : HeaderState::foreign;
    if (got == 0) break;
    filled += static_cast<std::size_t>(got);
  }
  return decode_header(bytes, header);
}

void remove_file(const std::string& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) throw_errno(errno, path);
}

}  // namespace

bool is_ssd_fingerprint(const std::string& name) {
  const auto is_hex = [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); };
  return name.size() >= 8 && name.size() <= 128 && std::ranges::all_of(name, is_hex);
}

SsdLock::SsdLock(Fd file) : file_(std::move(file)), owner_pid_(::getpid()) {}

SsdLock::~SsdLock() {
  if (file_.valid() && owner_pid_ == ::getpid()) (void)::flock(file_.get(), LOCK_UN);
}

std::optional<SsdLock> SsdLock::take(const std::string& path) {
  check_regular_or_missing(path);
  Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK, 0600));
  if (!file.valid()) refuse_to_make(errno, path);
  for (int attempt = 0; attempt < lock_attempts; ++attempt) {
    if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return SsdLock(std::move(file));
    if (errno == EWOULDBLOCK) {
      ::sched_yield();
    } else if (errno != EINTR) {
      throw SsdConfigError(path + " cannot be locked (" + std::generic_category().message(errno) +
                           "); name a directory on a local file system");
    }
  }
  return std::nullopt;
}

bool SsdLock::is_held(const std::string& path) {
  const Fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK));
  if (!file.valid()) return false;
  return ::flock(file.get(), LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

int SsdLock::mark_used() const { return ::futimens(file_.get(), nullptr) == 0 ? 0 : errno; }

void check_regular_or_missing(const std::string& path) {
  const auto info = stat_of(path);
  if (!info || S_ISREG(info->st_mode)) return;
  throw SsdConfigError(path + " is not a regular file; remove it, or name another root");
}

void sync_directory(const std::string& path) {
  const Fd directory(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!directory.valid() || (::fsync(directory.get()) != 0 && errno != EINVAL)) throw_errno(errno, path);
}

std::string make_ssd_tree(const std::string& root) {
  if (root.empty()) throw SsdConfigError("the SSD directory is an empty name; name one, such as /mnt/nvme0/cache");
  const bool is_new_root = make_directory(root);
  check_directory(root);
  if (is_new_root) sync_directory(parent_of(root));
  const std::string tree = root + "/" + ssd_tree_name;
  const bool is_new_tree = make_directory(tree);
  check_directory(tree);
  check_ours_alone(tree);
  if (is_new_tree) sync_directory(root);
  return tree;
}

std::string find_ssd_tree(const std::string& root) {
  const std::string tree = root + "/" + ssd_tree_name;
  const auto info = stat_of(tree);
  return info && S_ISDIR(info->st_mode) ? tree : std::string();
}

bool make_sub_directory(const std::string& tree, const std::string& fingerprint) {
  const std::string path = tree + "/" + fingerprint;
  const bool is_new = make_directory(path);
  check_directory(path);
  if (is_new) sync_directory(tree);
  return is_new;
}

SubDirectory look_at_sub_directory(const std::string& tree, const std::string& fingerprint) {
  SubDirectory seen;
  seen.fingerprint = fingerprint;
  seen.path = tree + "/" + fingerprint;
  seen.state = look_at_header(seen.path + "/" + ssd_records_name, seen.header);
  seen.footprint_bytes =
      footprint_of(seen.path + "/" + ssd_records_name) + footprint_of(seen.path + "/" + ssd_data_name);
  if (const auto lock = stat_of(seen.path + "/" + ssd_lock_name)) {
    constexpr std::int64_t second_ns = 1'000'000'000;
    seen.used_at_ns = lock->st_mtim.tv_sec * second_ns + lock->st_mtim.tv_nsec;
  }
  return seen;
}

std::vector<SubDirectory> sub_directories(const std::string& tree) {
  std::vector<std::string> names;
  std::error_code error;
  std::filesystem::directory_iterator entry(tree, error);
  const std::string prefix = tree + "/";
  for (; !error && entry != std::filesystem::directory_iterator(); entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    const auto info = stat_of(std::string(prefix).append(name));
    if (is_ssd_fingerprint(name) && info && S_ISDIR(info->st_mode)) names.push_back(name);
  }
  if (error) throw std::system_error(error, tree);
  std::ranges::sort(names);
  std::vector<SubDirectory> found;
  found.reserve(names.size());
  for (const std::string& name : names) found.push_back(look_at_sub_directory(tree, name));
  return found;
}

void remove_sub_directory(const std::string& tree, const std::string& fingerprint) {
  const std::string path = tree + "/" + fingerprint;
  remove_file(path + "/" + ssd_data_name);
  sync_directory(path);
  remove_file(path + "/" + ssd_records_name);
  remove_file(path + "/" + ssd_lock_name);
  if (::rmdir(path.c_str()) != 0 && errno != ENOENT && errno != ENOTEMPTY && errno != EEXIST) throw_errno(errno, path);
  sync_directory(tree);
}

}  // namespace flexkv
