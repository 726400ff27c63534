// What an op asks of its arguments before it touches memory, on every device: the raw op (torch.ops.ddarts_ext.<op>) must
// not end the process, whatever it is called with. The public functions in Python say the same in more words, earlier.
//
//   const check::Op op{"pool3x3"};
//   op.image("x", x);
//   op.require(stride == 1 || stride == 2, "stride must be 1 or 2, got ", stride);
#pragma once

#include "tensors.h"

#include <array>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

namespace ddarts::check {
namespace {  // per copy of a CPU kernel, on purpose

constexpr int64_t kAny = -1;  // in a shape: this size may be anything
constexpr int64_t kMostStride = int64_t{1} << 31;
constexpr int64_t kMostCopies = int64_t{1} << 16;
constexpr int64_t kMostGroups = int64_t{1} << 16;  // of an empty batch, which any number divides

inline bool floating(ScalarType dtype) {
  return dtype == ScalarType::Double || dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16;
}

struct Place {
  int32_t type = 0, index = 0;
  explicit Place(const Tensor& x) {
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(x.get(), &type));
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(x.get(), &index));
  }
  bool operator==(const Place& other) const { return type == other.type && index == other.index; }
};

inline std::string text(const std::vector<int64_t>& shape) {
  std::ostringstream out;
  for (size_t i = 0; i < shape.size(); ++i) {
    out << (i ? "," : "[");
    shape[i] == kAny ? out << "*" : out << shape[i];
  }
  out << (shape.empty() ? "[]" : "]");
  return out.str();
}

// Of one call. The first tensor that is asked about says which device all others must be on.
class Op {
 public:
  explicit Op(const char* name) : name_(name) {}

  template <typename... Words>
  void require(bool holds, const Words&... words) const {
    if (holds) return;
    std::ostringstream message;
    message << name_ << ": ";
    (message << ... << words);
    throw std::runtime_error(message.str());
  }

  // Floating, of this shape, on the device of the tensors before it.
  void tensor(const char* argument, const Tensor& x, const std::vector<int64_t>& shape) {
    dense(argument, x, shape);
    require(floating(x.scalar_type()), argument, " must be float64, float32, float16 or bfloat16");
  }
  void tensor(const char* argument, const Tensor& x, const std::vector<int64_t>& shape, ScalarType dtype) {
    dense(argument, x, shape);
    require(x.scalar_type() == dtype, argument, " has a dtype that does not fit the other arguments");
  }
  template <typename... Rest>
  void tensor(const char* argument, const std::optional<Tensor>& x, const Rest&... rest) {
    if (x.has_value()) tensor(argument, *x, rest...);
  }
  template <typename... Rest>
  void tensors(const char* argument, const std::vector<Tensor>& list, const Rest&... rest) {
    for (const Tensor& x : list) tensor(argument, x, rest...);
  }

  // [N,C,H,W] with a channel and a pixel; the batch may be empty.
  void image(const char* argument, const Tensor& x) {
    tensor(argument, x, {kAny, kAny, kAny, kAny});
    if (x.size(1) < 1 || x.size(2) < 1 || x.size(3) < 1)
      require(false, argument, " must have C, H and W of at least 1, got ", text(shape_of(x)));
  }

  void groups(int64_t batch, int64_t groups) const {
    require(groups >= 1, "groups must be at least 1, got ", groups);
    require(batch > 0 || groups <= kMostGroups, "groups must be at most ", kMostGroups, " of an empty batch, got ", groups);
    require(batch % groups == 0, "the batch must be divisible by groups=", groups, ", got ", batch);
  }
  void stride(int64_t stride) const { require(stride == 1 || stride == 2, "stride must be 1 or 2, got ", stride); }
  void count(const char* argument, size_t found, size_t expected) const {
    require(found == expected, argument, " must be ", expected, " entries, got ", found);
  }

  // Given statistics [1 or G,...], both or neither.
  void statistics(const std::optional<Tensor>& mean, const std::optional<Tensor>& rstd, int64_t groups,
                  const std::vector<int64_t>& rest) {
    require(mean.has_value() == rstd.has_value(), "mean and rstd must be given together");
    for (const auto& [argument, table] : {std::pair("mean", &mean), std::pair("rstd", &rstd)}) {
      if (!table->has_value()) continue;
      const Tensor& rows = **table;
      std::vector<int64_t> shape{rows.dim() > 0 && rows.size(0) == 1 ? 1 : groups};
      shape.insert(shape.end(), rest.begin(), rest.end());
      tensor(argument, rows, shape);
    }
  }

  static std::vector<int64_t> shape_of(const Tensor& x) {
    std::vector<int64_t> shape;
    for (int64_t i = 0; i < x.dim(); ++i) shape.push_back(x.size(i));
    return shape;
  }

 private:
  void dense(const char* argument, const Tensor& x, const std::vector<int64_t>& shape) {
    require(x.defined(), argument, " must be a tensor, got none");
    int32_t layout = 0;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_layout(x.get(), &layout));
    require(layout == aoti_torch_layout_strided(), argument, " must be dense");
    const Place place(x);
    if (!place_.has_value()) place_ = place;
    require(place == *place_, argument, " must be on the device of the other tensors");
    bool fits = x.dim() == static_cast<int64_t>(shape.size());
    for (size_t i = 0; fits && i < shape.size(); ++i)
      fits = shape[i] == kAny || x.size(static_cast<int64_t>(i)) == shape[i];
    if (!fits) require(false, argument, " must be ", text(shape), ", got ", text(shape_of(x)));  // texts take longer than checks
  }

  const char* name_;
  std::optional<Place> place_;
};

inline int64_t strided(int64_t size, int64_t stride) { return size / stride + (size % stride != 0); }

}  // namespace
}  // namespace ddarts::check
