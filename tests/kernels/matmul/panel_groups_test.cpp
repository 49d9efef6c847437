// Panels of a packed operand lie in groups: whoever walks from group to group and whoever asks for
// one panel must find the same ones.
#include "kernels/cpu/matmul_kernels.hpp"

#include <gtest/gtest.h>

namespace rankwise::kernels::cpu {
namespace {

TEST(PanelGroups, AreTheSameForWalksAndForOnePanel) {
    for (std::int64_t together = 1; together <= 5; ++together) {
        for (std::int64_t panels = 1; panels <= 23; ++panels) {
            std::int64_t first = 0;
            for (std::int64_t width = 0; first < panels; first += width) {
                width = group_width(panels - first, together);
                ASSERT_GT(width, 0);
                for (std::int64_t panel = first; panel < first + width; ++panel) {
                    const PanelGroup group = group_of_panel(panel, panels, together);
                    EXPECT_EQ(group.first, first) << together << ' ' << panels << ' ' << panel;
                    EXPECT_EQ(group.width, width) << together << ' ' << panels << ' ' << panel;
                }
            }
            EXPECT_EQ(first, panels) << together;
        }
    }
}

TEST(PanelGroups, LeaveNoPanelAlone) {
    for (std::int64_t together = 3; together <= 5; ++together) {
        for (std::int64_t panels = 2; panels <= 23; ++panels) {
            for (std::int64_t panel = 0; panel < panels; ++panel)
                EXPECT_GT(group_of_panel(panel, panels, together).width, 1)
                    << together << ' ' << panels << ' ' << panel;
        }
    }
}

}  // namespace
}  // namespace rankwise::kernels::cpu
