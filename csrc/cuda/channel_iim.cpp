// channel_iim on CUDA: one launch for up to 64 maps of one dtype and layout.
#include "channel_iim.h"

#include "../common/cuda_op.h"
#include "../common/channel_iim_check.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>
#include <vector>

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

Tensor channel_iim(std::vector<Tensor> maps, std::optional<Tensor> mean, std::optional<Tensor> rstd,
                   std::vector<bool> normalize, bool paper) {
  ddarts::check_channel_iim(maps, mean, rstd, normalize);
  const ddarts::DeviceStream device(maps[0]);
  const int64_t count = static_cast<int64_t>(maps.size()), samples = maps[0].size(0), channels = maps[0].size(1);
  const ScalarType sums = ddarts::accumulate_dtype(maps[0]);
  const size_t width = sums == ScalarType::Double ? 8 : 4;
  Tensor out = torch::stable::new_empty(maps[0], {count, samples}, sums);
  const bool given = mean.has_value() && rstd.has_value();
  if (given) {
    mean = torch::stable::contiguous(*mean);
    rstd = torch::stable::contiguous(*rstd);
  }
  std::map<std::pair<ddarts::DType, bool>, std::vector<ddarts::IimMap>> launches;
  for (int64_t k = 0; k < count; ++k) {
    const bool last = !maps[k].is_contiguous() && ddarts::layout::pitch_of(maps[k]) > 0;
    maps[k] = ddarts::layout::in_pieces(maps[k], last);
    const bool normalized = given && normalize[k];
    const auto row = [&](const Tensor& t) {
      return static_cast<const char*>(t.const_data_ptr()) + k * channels * width;
    };
    launches[{ddarts::dtype_of(maps[k]), last}].push_back({maps[k].const_data_ptr(), normalized ? row(*mean) : nullptr,
                                                           normalized ? row(*rstd) : nullptr,
                                                           static_cast<char*>(out.mutable_data_ptr()) + k * samples * width,
                                                           last ? ddarts::layout::pitch_of(maps[k]) : 0});
  }
  ddarts::IimShape shape{samples, channels, maps[0].size(2) * maps[0].size(3), samples, count * channels, false, paper};
  if (given) shape.per_group = samples / mean->size(0);
  for (const auto& [kind, list] : launches) {
    shape.channels_last = kind.second;
    for (size_t first = 0; first < list.size(); first += ddarts::kIimMaps) {
      const size_t size = std::min(list.size() - first, static_cast<size_t>(ddarts::kIimMaps));
      DDARTS_CUDA_CHECK(
          ddarts::channel_iim(kind.first, list.data() + first, static_cast<int>(size), shape, device.stream()));
    }
  }
  return out;
}

DDARTS_CUDA_KERNELS(m) { m.impl("channel_iim", TORCH_BOX(&channel_iim)); }

}  // namespace
