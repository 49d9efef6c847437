// A callable that is used during a call and not kept: std::function without a copy of it.
#pragma once

#include <concepts>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>

namespace rankwise {

template <class Signature>
class FunctionRef;

/// Refers to a callable object, which must outlive it: a parameter of functions that call it before
/// they return. Two words, copied freely, never empty. (std::function_ref of C++26.)
template <class Result, class... Arguments>
class FunctionRef<Result(Arguments...)> {
  public:
    template <class Callable>
    requires(!std::same_as<std::remove_cvref_t<Callable>, FunctionRef> &&
             std::is_object_v<std::remove_reference_t<Callable>> &&
             std::is_invocable_r_v<Result, const Callable&, Arguments...>)
        // NOLINTNEXTLINE(google-explicit-constructor): a lambda is given where this is asked for
        FunctionRef(const Callable& callable)
        : callable_(std::addressof(callable)),
          call_([](const void* object, Arguments... arguments) -> Result {
              return std::invoke(*static_cast<const Callable*>(object),
                                 std::forward<Arguments>(arguments)...);
          }) {}

    Result operator()(Arguments... arguments) const {
        return call_(callable_, std::forward<Arguments>(arguments)...);
    }

  private:
    const void* callable_;
    Result (*call_)(const void*, Arguments...);
};

}  // namespace rankwise
