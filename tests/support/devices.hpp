// The devices that every test of an op runs on, and ways to bring values there and back.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <ostream>
#include <span>
#include <string>
#include <vector>

#include "kernels/device.hpp"

namespace rankwise::test {

/// One device to test on: its options and a name for the test's output ("avx512_2_threads",
/// "checked_1_thread").
struct DeviceCase {
    std::string name;
    kernels::CpuOptions options;
};

inline void PrintTo(const DeviceCase& device, std::ostream* out) {
    *out << device.name;
}

/// Each instruction set of this machine, and the checked device, with 1 and 2 threads. The first is
/// the plainest.
inline std::vector<DeviceCase> device_cases() {
    std::vector<DeviceCase> cases;
    const auto add = [&](const std::string& kind, kernels::CpuOptions options) {
        for (int threads : {1, 2}) {
            options.threads = threads;
            cases.push_back(
                {kind + "_" + std::to_string(threads) + (threads == 1 ? "_thread" : "_threads"),
                 options});
        }
    };
    for (kernels::Isa isa : kernels::available_isas()) {
        add(kernels::name_of(isa), {.isa = isa, .threads = 1, .checked = false});
    }
    add("checked", {.isa = kernels::Isa::automatic, .threads = 1, .checked = true});
    return cases;
}

/// Names for INSTANTIATE_TEST_SUITE_P(Devices, Suite, ValuesIn(device_cases()), device_name).
inline std::string device_name(const testing::TestParamInfo<DeviceCase>& info) {
    return info.param.name;
}

/// A device with a stream, and short ways to move values.
class DeviceUnderTest {
  public:
    explicit DeviceUnderTest(const DeviceCase& device)
        : device_(kernels::make_cpu_device(device.options)), stream_(device_->make_stream()) {}

    [[nodiscard]] kernels::Device& operator*() const { return *device_; }
    [[nodiscard]] kernels::Device* operator->() const { return device_.get(); }
    [[nodiscard]] kernels::Stream& stream() const { return *stream_; }

    template <class T>
    [[nodiscard]] kernels::DeviceBuffer<T> make(std::int64_t size) const {
        return {*device_, size};
    }
    template <class T>
    [[nodiscard]] kernels::DeviceBuffer<T> put(const std::vector<T>& values) const {
        auto buffer = make<T>(static_cast<std::int64_t>(values.size()));
        device_->upload(std::span<const T>(values), buffer.span(), *stream_);
        return buffer;
    }
    template <class T>
    [[nodiscard]] std::vector<T> get(const kernels::DeviceBuffer<T>& buffer) const {
        return get(buffer.span());
    }
    template <class T>
    [[nodiscard]] std::vector<std::remove_const_t<T>> get(DeviceSpan<T> span) const {
        return device_->download(DeviceSpan<const std::remove_const_t<T>>(span), *stream_);
    }

  private:
    std::unique_ptr<kernels::Device> device_;
    std::unique_ptr<kernels::Stream> stream_;
};

/// A test that runs on every device: `class MatmulTest : public OnEveryDevice {}`.
class OnEveryDevice : public testing::TestWithParam<DeviceCase> {
  protected:
    DeviceUnderTest device{GetParam()};
};

}  // namespace rankwise::test
