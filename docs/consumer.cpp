// Reads ~/correspondences with rclcpp: prints track, keyframe's pixel and current pixel of every inlier.
#include <cstdio>

#include <rclcpp/rclcpp.hpp>
#include <sensor_msgs/msg/point_cloud2.hpp>
#include <sensor_msgs/point_cloud2_iterator.hpp>

using sensor_msgs::PointCloud2ConstIterator;

void on_cloud(const sensor_msgs::msg::PointCloud2 & cloud)
{
  PointCloud2ConstIterator<float> pixel0(cloud, "x0"), pixel1(cloud, "x1");  // each with its y behind it
  PointCloud2ConstIterator<uint32_t> track(cloud, "track_id");
  PointCloud2ConstIterator<uint8_t> inlier(cloud, "inlier");
  for (; track != track.end(); ++pixel0, ++pixel1, ++track, ++inlier) {
    if (*inlier) {
      std::printf("%u: %.1f %.1f -> %.1f %.1f\n", *track, pixel0[0], pixel0[1], pixel1[0], pixel1[1]);
    }
  }
  std::fflush(stdout);
}

int main(int argc, char ** argv)
{
  rclcpp::init(argc, argv);
  auto node = std::make_shared<rclcpp::Node>("cpp_consumer");
  const auto subscription = node->create_subscription<sensor_msgs::msg::PointCloud2>(
    "/feature_matcher/correspondences", 10, on_cloud);
  rclcpp::spin(node);
  rclcpp::shutdown();
}
